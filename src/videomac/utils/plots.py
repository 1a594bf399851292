"""What several plots share."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path


def loss_curves(metrics_csv: Path, path: Path) -> None:
    """Draw the four losses, the held-out loss and the learning rate of a run's `metrics.csv` into a PNG."""
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for key, color in (
        ("loss", "black"),
        ("online_loss", "tab:blue"),
        ("target_loss", "tab:orange"),
        ("consistency_loss", "tab:green"),
    ):
        values = [float(row[key]) for row in rows]
        losses.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        losses.plot(steps, smooth(values), color=color, linewidth=1.6, label=key.replace("_", " "))
    held_out = [(int(row["step"]), float(row["held_out_loss"])) for row in rows if row.get("held_out_loss")]
    if held_out:
        losses.plot(*zip(*held_out, strict=True), "D", color="tab:red", markersize=4, label="held-out loss")
    top = sorted(float(row["loss"]) for row in rows)[-max(1, len(rows) // 50)]
    losses.set_ylim(0, top * 1.1 if math.isfinite(top) and top > 0 else None)
    losses.set_ylabel("loss")
    losses.grid(alpha=0.3)
    losses.legend(frameon=False, ncols=3)
    rate.plot(steps, [float(row["learning_rate"]) for row in rows], color="tab:purple")
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", scilimits=(0, 0))
    rate.set_xlabel("optimizer step")
    rate.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a fiftieth of the curve, corrected for its start as in Adam."""
    keep = 1 - 1 / max(1, len(values) / 50)
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed
