from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videomac.study.plan import Study, as_study
from videomac.study.runs import runs_of

PLAN: dict[str, Any] = {
    "title": "Losses & <masks>",
    "base": {"backbone": "convnextv2_atto", "steps": 4},
    "rows": [
        {"name": "first", "paper": 68.4},
        {"name": "without $loss$", "options": {"gamma": 0.0}, "paper": 60.6},
        {"name": "deep", "options": {"decoder_depth": 2}, "paper": 68.2, "expect": "as good"},
    ],
    "seeds": [0, 1],
    "davis": {"stages": [2, 3]},
}


@pytest.fixture
def study() -> Study:
    return as_study(PLAN, Path("study.yaml"))


def judge(folder: Path, scores: dict[str, float]) -> None:
    """Leave what `eval davis` leaves, with J and F one point to either side of these J&F."""
    folder.mkdir(parents=True)
    lines = [f"{name},{(score - 1) / 100},{(score + 1) / 100}" for name, score in scores.items()]
    (folder / "metrics.csv").write_text("\n".join(["Sequence,J-Mean,F-Mean", *lines]) + "\n")
    mean = sum(scores.values()) / len(scores) / 100
    (folder / "metrics.json").write_text(json.dumps({"J&F-Mean": mean}))


def pretend(study: Study, out: Path, seeds: tuple[int, ...] = (0, 1)) -> None:
    """Runs whose rows differ by -6, +0.5 and nothing from the first."""
    gains = {"first": 0.0, "without $loss$": -6.0, "deep": 0.5}
    for run in runs_of(study, out):
        if run.seed in seeds:
            run.pretraining.mkdir(parents=True)
            (run.pretraining / "metrics.json").write_text("{}")
            for stage in study.stages:
                base = 40 + 10 * (stage == 2) + run.seed
                gain = gains[run.row.name]
                judge(
                    run.judgement(stage), {"dog_1": base + gain, "dog_2": base + gain + 1, "camel_1": base + gain - 1}
                )
