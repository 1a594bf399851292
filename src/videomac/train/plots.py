"""The curves of a pre-training run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from videomac.utils.plots import draw_smoothed

LOSSES = ("loss", "online_loss", "target_loss", "consistency_loss")
"""The columns of `metrics.csv` that are losses: the sum, then what is added up (Eq. 3)."""


def loss_curves(metrics_csv: Path, path: Path) -> None:
    """Draw the four losses, the held-out loss and the learning rate of a run's `metrics.csv` into a PNG."""
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for key, color in zip(LOSSES, ("black", "tab:blue", "tab:orange", "tab:green"), strict=True):
        draw_smoothed(losses, steps, [float(row[key]) for row in rows], color=color, label=key.replace("_", " "))
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
