"""The model card (README.md) of an export: data, schedule, losses and evaluation, as the run itself recorded them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from videomac.config import read_config
from videomac.evaluate.compare import COLUMNS, EvalRun
from videomac.evaluate.protocols import EvalProtocol
from videomac.train.optim import scaled_lr
from videomac.train.plots import LOSSES
from videomac.utils.reading import read_text, reading
from videomac.utils.run_dir import read_rows


@dataclass(frozen=True)
class Training:
    """What a pre-training run wrote down about itself."""

    settings: dict[str, Any]
    """config.yaml"""
    metrics: dict[str, Any]
    """metrics.json; empty if the run has not finished."""
    last_row: dict[str, str]
    """The last row of metrics.csv; empty if there is none."""

    @property
    def losses(self) -> dict[str, float]:
        """Means over the last epoch, or the last step of a run that has not finished."""
        names = (*LOSSES, "held_out_loss", "held_out_zero_loss")
        found = self.metrics or self.last_row
        return {name: float(found[name]) for name in names if found.get(name) not in (None, "")}


def find_training(source: Path) -> Training | None:
    """The run that a source belongs to: itself, the folder that holds its checkpoints/ or its backbone/; or None."""
    for folder in (source, source.parent, source.parent.parent):
        if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
            settings = read_config(folder)
            if settings["command"] != "pretrain":
                return None
            finished = folder / "metrics.json"
            curve = folder / "metrics.csv"
            rows = read_rows(curve, last_step=2**62) if curve.is_file() else []
            return Training(
                settings,
                _numbers(finished) if finished.is_file() else {},
                rows[-1] if rows else {},
            )
    return None


def _numbers(path: Path) -> dict[str, Any]:
    with reading(path):
        return dict(json.loads(read_text(path)))


def model_card(report: Mapping[str, Any], training: Training | None, evaluations: Sequence[EvalRun]) -> str:
    """Fill the template.

    Args:
        report: what `export.json` holds.
        training: the run, if the source belongs to one.
        evaluations: what `videomac eval` found.
    """
    environment = Environment(
        loader=PackageLoader("videomac"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    settings = None if training is None else training.settings
    return environment.get_template("model_card.md").render(
        report=report,
        training=training,
        settings=settings,
        data_name=None if settings is None else Path(settings["data"]).name,
        peak_lr=None if settings is None else scaled_lr(settings["base_lr"], settings["global_batch_size"]),
        warmup=None if settings is None else _warmup(settings),
        evaluations=[
            {
                "name": run.settings["benchmark"].upper(),
                "numbers": {key: f"{100 * run.numbers[key]:.1f}" for key in COLUMNS[run.settings["benchmark"]]},
                "features": run.features,
                "weights": Path(str(run.settings["weights"]).split(" ")[0]).name,
                "protocol": run.protocol,
                "settings": {key: run.settings.get(key) for key in EvalProtocol.__dataclass_fields__ if key != "name"},
            }
            for run in evaluations
        ],
    )


def _warmup(settings: Mapping[str, Any]) -> str:
    """The length of the warm-up, in words; how many epochs a run of so many steps had is not stored."""
    given, epochs = settings["warmup_epochs"], settings["epochs"]
    if given is None and epochs is None:
        return "a tenth of the run, at most 10 epochs,"
    return f"{min(10.0, epochs / 10) if given is None else given:.3g} epochs"
