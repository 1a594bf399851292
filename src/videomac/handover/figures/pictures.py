"""Fig. 2, 4 and 8: heat maps, propagated labels and reconstructions, as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from videomac.visualize import Reconstruction

Picture = npt.NDArray[np.uint8]
CELL = 1.9
"""Height of a picture in inches."""


@dataclass(frozen=True)
class Looked:
    """One frame of Fig. 2."""

    title: str
    pictures: Reconstruction
    heat: npt.NDArray[np.float32]
    """`[rows, columns]`, in units of hidden values."""


def where_it_looks(frames: Sequence[Looked], similarity: float, masks: int) -> Figure:
    """Fig. 2: for both frames the frame, one mask, its reconstruction, and the map over all masks.

    Each map has its own scale, from 0 to its strongest hundredth: the target network, a slow average, answers more
    weakly than the online network.
    """
    aspect = frames[0].pictures.frame.shape[3] / frames[0].pictures.frame.shape[2]
    figure = Figure(figsize=(4 * CELL * aspect + 1.4, 2 * CELL + 1.0), layout="constrained")
    axes = figure.subplots(2, 4)
    for row, looked in zip(axes, frames, strict=True):
        frame = _image(looked.pictures.frame[0])
        height, width = frame.shape[:2]
        grey = np.repeat(frame.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
        shown = (frame, _image(looked.pictures.masked[0]), _image(looked.pictures.pasted[0]), grey)
        for axis, picture in zip(row, shown, strict=True):
            _show(axis, picture)
        strongest = float(np.quantile(looked.heat, 0.99)) or 1.0
        heat = row[3].imshow(
            looked.heat / strongest, cmap="inferno", vmin=0, vmax=1, alpha=0.72, interpolation="bicubic",
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )  # fmt: skip
        row[0].set_ylabel(looked.title, fontsize=11)
    for axis, title in zip(
        axes[0], ("frame", "what the network sees", "reconstruction", "where it looks"), strict=True
    ):
        axis.set_title(title, fontsize=11)
    bar = figure.colorbar(heat, ax=axes[:, 3], shrink=0.9, pad=0.03)
    bar.set_label("contribution to hidden patches,\nof the frame's strongest", fontsize=9)
    figure.suptitle(
        f"Bright: what is seen there shapes most what is painted into hidden patches (mean of {masks} masks). "
        f"The two maps correlate by {similarity:.2f}.",
        fontsize=10,
    )
    return figure


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


def reconstructions(first: Reconstruction, second: Reconstruction, labels: Sequence[str], caption: str) -> Figure:
    """Fig. 8: a row for each pair; of both frames the frame, what was seen, and the reconstruction in its place."""
    count, _, height, width = first.frame.shape
    figure = Figure(figsize=(6 * CELL * width / height * 0.82 + 0.3, count * CELL * 0.82 + 0.9), layout="constrained")
    axes = figure.subplots(count, 6, squeeze=False)
    names = ("frame", "seen", "reconstructed")
    for number, row in enumerate(axes):
        for side, pictures in enumerate((first, second)):
            for offset, picture in enumerate((pictures.frame, pictures.masked, pictures.pasted)):
                _show(row[3 * side + offset], _image(picture[number]))
        row[0].set_ylabel(labels[number], fontsize=8)
    for column, axis in enumerate(axes[0]):
        whose = ("first frame, online network", "second frame, target network")[column // 3]
        axis.set_title((f"{whose}\n" if column % 3 == 1 else "\n") + names[column % 3], fontsize=10)
    figure.suptitle(caption, fontsize=10)
    return figure


def _show(axis: Axes, picture: Any) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _image(picture: Tensor) -> Picture:
    return np.asarray(picture.permute(1, 2, 0).numpy(), dtype=np.uint8)
