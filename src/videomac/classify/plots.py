"""Pictures of a classifier: its curves, and which classes it takes for which."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from videomac.utils.plots import draw_smoothed

READABLE_CLASSES = 40
"""Up to so many classes have their names beside the confusion matrix."""
MOST_POINTS = 125
"""Points on a side of the matrix of many classes: large enough to be seen one by one."""
MOST_PAIRS = 30
"""Pairs of classes that are named."""


def draw_curves(metrics_csv: Path, path: Path, steps_per_epoch: int) -> None:
    """Draw training loss, accuracy of both sets of weights, and learning rate."""
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epochs = [int(row["step"]) / steps_per_epoch for row in rows]
    figure = Figure(figsize=(8, 7), layout="constrained")
    losses, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    values = [float(row["loss"]) for row in rows]
    draw_smoothed(losses, epochs, values, color="black", label="training (on mixed images)")
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
    """Draw the share of each class (row) that was taken for each class (column).

    Few classes: every share, with numbers and names. Many: the mistakes alone, in a matrix that no mistake is too small
    for, and by name the pairs of classes that are mixed up most.
    """
    from matplotlib.figure import Figure

    counts = confusion.double().numpy()
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    heading = f"{title}: top-1 {100 * counts.trace() / max(counts.sum(), 1):.1f} % of {int(counts.sum())} images"
    if len(classes) <= READABLE_CLASSES:
        side = 3 + 0.45 * len(classes)
        figure = Figure(figsize=(max(side + 1, 5.5), side), layout="constrained")
        _draw_shares(figure, shares, classes)
    else:
        figure = Figure(figsize=(15, 8.5), layout="constrained")
        _draw_mistakes(figure, shares, classes)
    figure.suptitle(heading)
    figure.savefig(path, dpi=120)


def _draw_shares(figure: Any, shares: Any, classes: list[str]) -> None:
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class in %")
    axes.set(xlabel="predicted", ylabel="class")
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    for row, column in np.argwhere(shares >= 0.5):
        value = shares[row, column]
        color = "white" if value > 60 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)


def _draw_mistakes(figure: Any, shares: Any, classes: list[str]) -> None:
    matrix, pairs = figure.subplots(1, 2, width_ratios=[5, 3])
    mistakes = shares.copy()
    np.fill_diagonal(mistakes, 0)
    edge = len(classes) - 0.5
    shown = _largest_of_cells(mistakes, MOST_POINTS)
    extent = (-0.5, edge, edge, -0.5)
    image = matrix.imshow(shown, cmap="magma_r", vmin=0, vmax=max(mistakes.max(), 1), extent=extent)
    figure.colorbar(image, ax=matrix, shrink=0.8, label="share of the class that was taken for another, in %")
    matrix.set(xlabel="predicted (number of the class)", ylabel="class (number)", title="mistakes")
    worst = np.argsort(mistakes, axis=None)[::-1][:MOST_PAIRS]
    rows, columns = np.unravel_index(worst, mistakes.shape)
    pairs.barh(range(len(worst)), mistakes[rows, columns], color="tab:red", alpha=0.7)
    names = [f"{classes[row][:24]} taken for {classes[column][:24]}" for row, column in zip(rows, columns, strict=True)]
    pairs.set_yticks(range(len(worst)), names, fontsize=8)
    pairs.invert_yaxis()
    pairs.set(xlabel="share of the class in %", title="most frequent")
    pairs.grid(axis="x", alpha=0.3)


def _largest_of_cells(shares: Any, points: int) -> Any:
    """Shrink a matrix to at most `points` a side, each the largest of its cells."""
    cells = -(-len(shares) // points)
    padded = np.pad(shares, (0, -len(shares) % cells))
    blocks = padded.reshape(len(padded) // cells, cells, -1, cells)
    return blocks.max((1, 3))
