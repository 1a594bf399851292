"""Fig. 4: propagated labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from videomac.figures.common import Picture, _show


@dataclass(frozen=True)
class Propagated:
    """One row of Fig. 4: a sequence of an evaluation."""

    title: str
    sequence: str
    frames: list[int]
    pictures: list[Picture]


def propagated_labels(tasks: Sequence[Propagated]) -> Figure:
    """Fig. 4: a row for each evaluation, from the given labels of the first frame to the end of the video."""
    columns = max(len(task.pictures) for task in tasks)
    heights = [2.6 * task.pictures[0].shape[0] / task.pictures[0].shape[1] + 0.7 for task in tasks]
    figure = Figure(figsize=(2.6 * columns, sum(heights)), layout="constrained")
    strips = figure.subfigures(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for strip, task in zip(strips, tasks, strict=True):
        strip.suptitle(task.title, x=0.005, ha="left", fontsize=11, fontweight="bold")
        axes = strip.subplots(1, columns, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
        for number, (axis, picture, frame) in enumerate(zip(axes, task.pictures, task.frames, strict=False)):
            _show(axis, picture)
            axis.set_title(f"frame {frame}" + (", given" if number == 0 else ""), fontsize=9, color="#555555")
    return figure
