"""Fig. 6 and 7: loss curves of several runs over epochs, by component, by gamma and by encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from videomac.config import FREE_ON_RESUME, read_config
from videomac.errors import UserError
from videomac.figures.common import Drawn, save_figure
from videomac.train.plots import LOSSES
from videomac.utils.plots import COLOURS, draw_smoothed, smooth
from videomac.utils.reading import reading
from videomac.utils.run_dir import read_rows, write_rows

COMPONENTS = LOSSES[1:]
GAMMA = "\N{GREEK SMALL LETTER GAMMA}"


@dataclass(frozen=True)
class Curve:
    """The curve of a run."""

    name: str
    settings: dict[str, Any]
    epochs: list[float]
    """Epochs done at each step."""
    losses: dict[str, list[float]]
    """One value a step, for each of `COMPONENTS`."""


def read_curve(run: Path) -> Curve:
    """Read config.yaml and metrics.csv of a run, finished or not.

    Raises:
        UserError: one of them is missing, or not of a pre-training.
    """
    settings = read_config(run, "pretrain")
    if not (run / "metrics.csv").is_file():
        raise UserError(f"{run} has no metrics.csv: loss curves need folders that `videomac pretrain` wrote")
    rows = read_rows(run / "metrics.csv", last_step=2**62)
    if not rows:
        raise UserError(f"{run} has not done a step yet: its metrics.csv is empty")
    with reading(run / "metrics.csv"):
        steps_per_epoch = max(int(row["step"]) for row in rows if row["epoch"] == rows[0]["epoch"])
        return Curve(
            run.name,
            settings,
            [int(row["step"]) / steps_per_epoch for row in rows],
            {key: [float(row[key]) for row in rows] for key in COMPONENTS},
        )


def draw_components(out: Path, curves: Sequence[Curve]) -> Drawn:
    """Write `fig6`, and the data of both figures."""
    write_rows(out / "fig6-7.csv", rows(curves))
    save_figure(by_component(curves), out / "fig6")
    return Drawn(f"losses of {len(curves)} run(s) by component")


def draw_consistency(out: Path, curves: Sequence[Curve]) -> Drawn:
    """Write `fig7`, if there is anything to compare."""
    figure, obstacle = by_gamma(curves)
    if figure is None:
        return Drawn(f"not drawn: {obstacle}")
    save_figure(figure, out / "fig7")
    return Drawn("consistency loss by gamma and by encoder")


def by_component(curves: Sequence[Curve]) -> Figure:
    """Fig. 6: a panel for each loss, a line for each run."""
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    for axis, key in zip(figure.subplots(1, 3), COMPONENTS, strict=True):
        for number, curve in enumerate(curves):
            _line(axis, curve, key, number, curve.name)
        _finish(axis, curves, key, key.replace("_", " "))
    _legend(figure, curves)
    return figure


def _legend(figure: Figure, curves: Sequence[Curve]) -> None:
    if len(curves) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(curves)), frameon=False)


def by_gamma(curves: Sequence[Curve]) -> tuple[Figure | None, str]:
    """Fig. 7: the consistency loss for several weights of one encoder, and for several encoders of one weight.

    Returns:
        The figure, or None and why there is nothing to compare.
    """
    gammas, encoders = families(curves)
    if not gammas and not encoders:
        return None, "needs runs that differ in gamma alone, or in the backbone alone"
    panels = [(group, kind) for group, kind in ((gammas, "gamma"), (encoders, "backbone")) if group]
    figure = Figure(figsize=(5.5 * len(panels), 3.9), layout="constrained")
    for axis, (group, kind) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, curve in enumerate(group):
            value = curve.settings[kind]
            label = f"{GAMMA} = {value:g}" if kind == "gamma" else str(value)
            end = smooth(curve.losses["consistency_loss"])[-1]
            _line(axis, curve, "consistency_loss", number, f"{label}  (ends at {end:.3g})")
        fixed = f"{group[0].settings['backbone']}" if kind == "gamma" else f"{GAMMA} = {group[0].settings['gamma']:g}"
        _finish(
            axis, group, "consistency_loss", f"consistency loss by {GAMMA if kind == 'gamma' else 'encoder'} ({fixed})"
        )
        axis.legend(frameon=False)
    return figure, ""


def families(curves: Sequence[Curve]) -> tuple[list[Curve], list[Curve]]:
    """The largest set of runs that differ in gamma alone, and the largest that differ in the backbone alone.

    Empty where there are no two to compare.
    """
    found: list[list[Curve]] = []
    for free in ("gamma", "backbone"):
        groups: dict[str, dict[Any, Curve]] = {}
        for curve in curves:
            others = {key: curve.settings[key] for key in curve.settings.keys() - FREE_ON_RESUME - {free}}
            groups.setdefault(repr(sorted(others.items())), {}).setdefault(curve.settings[free], curve)
        largest = max(groups.values(), key=len, default={})
        members = [largest[key] for key in (sorted(largest) if free == "gamma" else largest)]
        found.append(members if len(members) > 1 else [])
    return found[0], found[1]


def rows(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """The data of both figures: one row a run and step."""
    return [
        {
            "run": curve.name,
            "backbone": curve.settings["backbone"],
            "gamma": curve.settings["gamma"],
            "epoch": epoch,
            **{key: curve.losses[key][step] for key in COMPONENTS},
        }
        for curve in curves
        for step, epoch in enumerate(curve.epochs)
    ]


def _line(axis: Axes, curve: Curve, key: str, number: int, label: str) -> None:
    draw_smoothed(axis, curve.epochs, curve.losses[key], color=COLOURS[number % len(COLOURS)], label=label)


def _finish(axis: Axes, curves: Sequence[Curve], key: str, title: str) -> None:
    """Cut off rare peaks, which would press everything else flat."""
    values = sorted(value for curve in curves for value in curve.losses[key])
    low, high = values[0], values[int(0.98 * (len(values) - 1))]
    axis.set_ylim(max(0.0, low - 0.1 * (high - low)), high + 0.1 * (high - low) + 1e-12)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("epoch")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
