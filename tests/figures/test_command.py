"""`videomac figures`: which pictures are drawn from what, and the numbers behind them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videomac import cli
from videomac.figures.command import run
from videomac.figures.config import FiguresConfig
from videomac.figures.fig4_labels import sequence_scores


@pytest.fixture(scope="module")
def material(small_run: Path, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run, an evaluation with overlays, a video."""
    import videomac
    from videomac.evaluate.synthetic import scene, write_davis

    root = tmp_path_factory.mktemp("figures")
    write_davis(root / "davis", {f"scene{n}": scene(4, (64, 96), 2, seed=n) for n in range(3)})
    videomac.evaluate.davis(small_run, data=root / "davis", out=root / "eval", size="64x96", stride=16)
    return {"run": small_run, "eval": root / "eval", "video": clips / "clip0.mp4"}


def test_all_that_can_be_drawn_is_drawn(material: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    config = FiguresConfig(
        [material["run"]], tmp_path, video=material["video"], evaluations=[material["eval"]], pairs=2, masks=3
    )
    metrics = run(config)
    said = {
        "fig2": f"correlate by {metrics['fig2']:.2f}", "fig4": "DAVIS, objects: J&amp;F-Mean", "fig5": "sparse (ours)",
        "fig6": ">online loss</text>", "fig8": f"loss {metrics['fig8']:.3f}",
    }  # fmt: skip
    for name, text in said.items():
        assert text in (tmp_path / f"{name}.svg").read_text(), name
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 22)) > 50, f"{name} is drawn"
    assert not (tmp_path / "fig7.png").exists() and "fig7  not drawn: needs runs that differ" in capsys.readouterr().out
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    with np.load(tmp_path / "fig2.npz") as data:
        assert data["heat"].shape == (2, 8, 12) and data["masks"].shape == (4, 2, 3)
        assert metrics["fig2"] == pytest.approx(np.corrcoef(data["heat"].reshape(2, -1))[0, 1], abs=1e-4)
    with np.load(tmp_path / "fig8.npz") as data:
        hidden = data["mask"].repeat(32, 1).repeat(32, 2)[:, None].repeat(3, 1)
        assert (data["frame_a"] == data["pasted_a"])[~hidden].all()
        assert not (data["frame_a"] == data["pasted_a"])[hidden].all()
    with (tmp_path / "fig6-7.csv").open(newline="") as file, (material["run"] / "metrics.csv").open(newline="") as own:
        drawn, written = list(csv.DictReader(file)), list(csv.DictReader(own))
    assert [row["online_loss"] for row in drawn] == [row["online_loss"] for row in written]


def test_figure_4_shows_the_median_sequence(material: dict[str, Path], tmp_path: Path) -> None:
    from videomac.evaluate.compare import read_run

    config = FiguresConfig([material["run"]], tmp_path, evaluations=[material["eval"]])
    run(config)
    scores = sequence_scores(read_run(material["eval"]))
    (shown,) = json.loads((tmp_path / "fig4.json").read_text())
    assert sorted(scores) == ["scene0", "scene1", "scene2"]
    assert sorted(scores, key=lambda name: scores[name])[1] == shown["sequence"]
    assert shown["frames"] == [0, 1, 2, 3]
    assert np.mean(list(scores.values())) == pytest.approx(read_run(material["eval"]).numbers["J&F-Mean"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "--video", "nowhere.mp4"], "nowhere.mp4"),
        (["RUN", "--video", "VIDEO", "--frame_gap", "50"], "frames"),
        (["RUN", "nowhere"], "nowhere holds no run (no config.yaml)"),
        (["EVAL"], "neither a run's folder"),
        (["RUN", "EVAL"], "was made by `videomac eval davis`"),
        (["RUN", "--evaluations", "RUN"], "was made by `videomac pretrain`"),
        (["RUN", "--video", "VIDEO", "--mask_ratio", "0.99"], "visible"),
        (["RUN", "--masks", "0"], "masks must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(
    material: dict[str, Path], tmp_path: Path, capsys: Any, arguments: list[str], sentence: str
) -> None:
    places = {"RUN": material["run"], "EVAL": material["eval"], "VIDEO": material["video"]}
    with pytest.raises(SystemExit) as stopped:
        cli.main(["figures", *(str(places.get(word, word)) for word in arguments), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in error and error.count("\n") == 1


def test_figures_in_use_are_refused(material: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "fig4.png").touch()
    with pytest.raises(SystemExit):
        cli.main(["figures", str(material["run"]), "--out", str(tmp_path)])
    assert "already holds a run (fig4.png)" in capsys.readouterr().err
