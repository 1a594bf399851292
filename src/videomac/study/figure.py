"""The figure of a study: differences to the first row, every seed, the interval, and the paper's value."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from videomac.study.plan import Study
from videomac.study.table import Line
from videomac.utils.io import atomic_write
from videomac.utils.plots import COLOURS, FAINT, INK

OURS, PAPER = COLOURS[0], COLOURS[1]


def draw(study: Study, lines: Sequence[Line], path: Path) -> None:
    """Write a PNG: one panel a stage, one line a row, from above in the study's order.

    Args:
        study: gives the title.
        lines: of the table.
        path: the file.
    """
    others = lines[1:]
    with rc_context({"text.parse_math": False}):  # names are shown as they are
        size = (4.6 * len(study.stages) + 2.2, 1.5 + 0.42 * len(others))
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(1, len(study.stages), sharey=True, squeeze=False)[0]
        for index, (stage, axis) in enumerate(zip(study.stages, axes, strict=True)):
            axis.axvline(0, color=FAINT, linewidth=1)
            for place, line in enumerate(others):
                _row(axis, place, line, lines[0], index)
            axis.set_title(f"stage {stage}", fontsize=11, color=INK)
            axis.set_xlabel(f"J&F, points above “{study.rows[0].name}”", fontsize=9)
            axis.set_yticks(range(len(others)), [line.name for line in others])
            axis.set_ylim(len(others) - 0.4, -0.6)
            axis.grid(axis="x", alpha=0.3)
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(axis="y", length=0)
        figure.suptitle(study.title, fontsize=12, x=0.01, ha="left")
        handles = [
            axes[0].plot([], [], "o-", color=OURS, markersize=7, linewidth=2, label="here: mean, 95 % interval")[0],
            axes[0].plot([], [], "o", color=OURS, alpha=0.45, markersize=4, label="a seed")[0],
        ]
        if any(line.paper is not None for line in lines):
            handles += axes[0].plot([], [], "D", color=PAPER, markerfacecolor="none", markersize=7, label="the paper")
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")


def _row(axis: Any, place: int, line: Line, first: Line, index: int) -> None:
    cell, base = line.cells[index], dict(zip(first.cells[index].seeds, first.cells[index].scores, strict=True))
    if line.paper is not None and first.paper is not None:
        axis.plot(line.paper - first.paper, place, "D", color=PAPER, markerfacecolor="none", markersize=7)
    if cell.gained is None:
        return
    seeds = [score - base[seed] for seed, score in zip(cell.seeds, cell.scores, strict=True) if seed in base]
    axis.plot(seeds, [place + 0.18] * len(seeds), "o", color=OURS, alpha=0.45, markersize=4)
    axis.plot([cell.gained.low, cell.gained.high], [place, place], color=OURS, linewidth=2)
    axis.plot(cell.gained.mean, place, "o", color=OURS, markersize=7)
