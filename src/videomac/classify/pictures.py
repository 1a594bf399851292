"""Pictures of a classifier: its curves, and which classes it takes for which."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from videomac.visualize import smooth

READABLE_CLASSES = 40
"""Up to so many classes have their names beside the confusion matrix."""


def draw_curves(metrics_csv: Path, path: Path, steps_per_epoch: int) -> None:
    """Draw training loss, accuracy of both sets of weights, and learning rate."""
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["step"]) / steps_per_epoch for row in rows]
    figure = Figure(figsize=(8, 7), layout="constrained")
    losses, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    values = [float(row["loss"]) for row in rows]
    losses.plot(epochs, values, color="black", alpha=0.2, linewidth=0.8)
    losses.plot(epochs, smooth(values), color="black", label="training (on mixed images)")
    for prefix, color, label in (("", "tab:blue", "last weights"), ("ema_", "tab:orange", "moving average")):
        ends = [(epoch, row) for epoch, row in zip(epochs, rows, strict=True) if row[f"{prefix}top1"]]
        if not ends:
            continue
        at = [epoch for epoch, _ in ends]
        losses.plot(at, [float(row[f"{prefix}val_loss"]) for _, row in ends], color=color, label=label)
        for key, style in (("top1", "-"), ("top5", ":")):
            shares = [100 * float(row[prefix + key]) for _, row in ends]
            accuracy.plot(at, shares, style, color=color, marker=".", label=f"{label}, {key.replace('p', 'p-')}")
    losses.set_ylabel("cross-entropy")
    losses.set_ylim(bottom=0)
    accuracy.set_ylabel("accuracy in %")
    accuracy.set_ylim(0, 102)
    rate.plot(epochs, [float(row["learning_rate"]) for row in rows], color="tab:purple")
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", scilimits=(0, 0))
    rate.set_xlabel("epoch")
    for axes in (losses, accuracy, rate):
        axes.grid(alpha=0.3)
    for axes in (losses, accuracy):
        axes.legend(frameon=False, ncols=2)
    figure.savefig(path, dpi=120)


def draw_confusion(confusion: Int[Tensor, "classes classes"], classes: list[str], path: Path, *, title: str) -> None:
    """Draw the share of each class (row) that was taken for each class (column): numbers and names if they fit.

    With many classes a cell is smaller than a pixel, so that mistakes would vanish: each point then shows the largest
    share of its cells.
    """
    from matplotlib.figure import Figure

    counts = confusion.double().numpy()
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = len(classes) <= READABLE_CLASSES
    side = 3 + 0.45 * len(classes) if names else 10
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shown = shares if names else _largest_of_cells(shares, 500)
    image = axes.imshow(shown, cmap="Blues", vmin=0, vmax=100 if names else 50, extent=_extent(len(classes)))
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class in %", extend="neither" if names else "max")
    axes.set_xlabel("predicted")
    axes.set_ylabel("class")
    top1 = 100 * counts.trace() / max(counts.sum(), 1)
    axes.set_title(f"{title}: top-1 {top1:.1f} % of {int(counts.sum())} images")
    if names:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for row, column in np.argwhere(shares >= 0.5):
            value = shares[row, column]
            color = "white" if value > 60 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=120)


def _extent(classes: int) -> tuple[float, float, float, float]:
    return -0.5, classes - 0.5, classes - 0.5, -0.5


def _largest_of_cells(shares: Any, points: int) -> Any:
    """Shrink a matrix to at most `points` a side, each the largest of its cells."""
    cells = -(-len(shares) // points)
    rest = -len(shares) % cells
    padded = np.pad(shares, (0, rest))
    blocks = padded.reshape(len(padded) // cells, cells, -1, cells)
    return blocks.max((1, 3))
