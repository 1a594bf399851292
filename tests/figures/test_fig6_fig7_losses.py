"""Fig. 6 and 7: which runs are compared, and which lines are drawn."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from videomac.figures import fig6_fig7_losses as curves
from videomac.utils.plots import smooth


def write_run(folder: Path, gamma: float, backbone: str = "resnet18", seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    settings = {
        "command": "pretrain",
        "data": "videos",
        "backbone": backbone,
        "gamma": gamma,
        "seed": seed,
        "out": str(folder),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("step", "epoch", *curves.COMPONENTS))
        writer.writeheader()
        for step in range(1, 21):
            values = dict.fromkeys(curves.COMPONENTS, 1 / step + gamma)
            writer.writerow({"step": step, "epoch": (step - 1) // 5 + 1, **values})
    return folder


def test_epochs_and_values_come_from_the_csv(tmp_path: Path) -> None:
    curve = curves.read_curve(write_run(tmp_path / "run", 0.5))
    assert curve.epochs == [step / 5 for step in range(1, 21)]
    assert curve.losses["target_loss"][3] == 1 / 4 + 0.5
    rows = curves.rows([curve])
    assert len(rows) == 20 and rows[9] == {
        "run": "run", "backbone": "resnet18", "gamma": 0.5, "epoch": 2.0, **dict.fromkeys(curves.COMPONENTS, 0.6),
    }  # fmt: skip


def test_only_runs_that_differ_in_one_thing_are_compared(tmp_path: Path) -> None:
    made = [("a", 1.0, "resnet18", 0), ("b", 0.0, "resnet18", 0), ("c", 1.0, "resnet50", 0), ("d", 0.5, "resnet18", 7)]
    read = [curves.read_curve(write_run(tmp_path / name, *settings)) for name, *settings in made]
    gammas, encoders = curves.families(read)
    assert [curve.name for curve in gammas] == ["b", "a"], "by gamma; d has another seed"
    assert [curve.name for curve in encoders] == ["a", "c"]
    figure, obstacle = curves.by_gamma(read)
    assert figure is not None and not obstacle
    labels = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert [label.split("  ")[0] for panel in labels for label in panel] == [
        f"{curves.GAMMA} = 0", f"{curves.GAMMA} = 1", "resnet18", "resnet50",
    ]  # fmt: skip
    assert curves.by_gamma(read[:1])[0] is None


def test_each_panel_of_figure_6_has_the_values_and_the_mean_of_each_run(tmp_path: Path) -> None:
    read = [curves.read_curve(write_run(tmp_path / name, gamma)) for name, gamma in (("a", 1.0), ("b", 0.25))]
    for number, key in enumerate(curves.COMPONENTS):
        read[0].losses[key][:] = [value + number for value in read[0].losses[key]]
    figure = curves.by_component(read)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["online loss", "target loss", "consistency loss"]
    for axis, key in zip(figure.axes, curves.COMPONENTS, strict=True):
        values, means = axis.lines[::2], axis.lines[1::2]
        for curve, line, mean in zip(read, values, means, strict=True):
            assert [*line.get_xdata()] == [*mean.get_xdata()] == curve.epochs
            assert [*line.get_ydata()] == curve.losses[key]
            assert [*mean.get_ydata()] == pytest.approx(smooth(curve.losses[key])) and mean.get_label() == curve.name
        assert values[0].get_color() != values[1].get_color() == means[1].get_color()


def test_each_panel_of_figure_7_shows_the_consistency_loss(tmp_path: Path) -> None:
    read = [curves.read_curve(write_run(tmp_path / name, gamma)) for name, gamma in (("a", 1.0), ("b", 0.25))]
    figure, _ = curves.by_gamma(read)
    assert figure is not None
    (axis,) = figure.axes
    assert [[*line.get_ydata()] for line in axis.lines[::2]] == [
        curve.losses["consistency_loss"] for curve in reversed(read)
    ], "the smaller weight first"
