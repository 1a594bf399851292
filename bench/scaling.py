"""How the cost of a forward and backward of the encoder grows with the hidden share, the resolution and the batch.

    OMP_NUM_THREADS=1 python bench/scaling.py --out OUT [--backbone convnextv2_tiny] [--device cuda]

At each point blocks and dense take turns in one process; the medians of their rounds go to OUT/scaling.csv and
OUT/scaling.png.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from videomac.bench.command import paired
from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask

RATIOS = [0.0, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95]
SIZES = [128, 192, 256, 384, 512]
BATCHES = [1, 2, 4, 8, 16]


def point(backbone: str, size: int, ratio: float, batch: int, rounds: int, device: torch.device) -> tuple[float, float]:
    """Seconds of blocks and of dense."""
    torch.manual_seed(0)
    dense = create_backbone(backbone).to(device).to(memory_format=torch.channels_last)
    encoder = SparseEncoder(create_backbone(backbone).to(device).to(memory_format=torch.channels_last), mode="blocks")
    frames = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    mask = random_mask(batch, (size // encoder.stride,) * 2, ratio)
    steps = {
        "blocks": lambda: torch.autograd.backward(encoder(frames, mask).sum()),
        "dense": lambda: torch.autograd.backward(dense.forward_features(frames).sum()),
    }
    times = paired(steps, rounds, device)
    return statistics.median(times["blocks"]), statistics.median(times["dense"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="convnextv2_tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=4)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    sweeps = {
        "hidden share": [(options.size, ratio, options.batch) for ratio in RATIOS],
        "frame size (pixels)": [(size, 0.75, options.batch) for size in SIZES],
        "batch (frames)": [(options.size, 0.75, batch) for batch in BATCHES],
    }
    rows = []
    for sweep, points in sweeps.items():
        for size, ratio, batch in points:
            blocks, dense = point(options.backbone, size, ratio, batch, options.rounds, torch.device(options.device))
            x = {"hidden share": ratio, "frame size (pixels)": size, "batch (frames)": batch}[sweep]
            rows.append({"sweep": sweep, "x": x, "blocks": blocks, "dense": dense, "share": 1 - ratio})
            print(f"{sweep} {x}: blocks {blocks:.3f} s, dense {dense:.3f} s, {blocks / dense:.3f} of it", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "scaling.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, list(sweeps), options.backbone, options.out / "scaling.png")


def draw(rows: list[dict[str, float | str]], sweeps: list[str], backbone: str, path: Path) -> None:
    """One panel a sweep: the cost of blocks, as a share of dense for the hidden share, in seconds for the others."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, sweep in zip(axes, sweeps, strict=True):
        points = [row for row in rows if row["sweep"] == sweep]
        x = [float(row["x"]) for row in points]
        blocks, dense = ([float(row[kind]) for row in points] for kind in ("blocks", "dense"))
        if sweep == "hidden share":
            visible = [float(row["share"]) for row in points]
            axis.plot(visible, [b / d for b, d in zip(blocks, dense, strict=True)], "o-", label="blocks / dense")
            axis.plot(visible, visible, "--", color="grey", label="visible share")
            axis.set(xlabel="visible share", ylabel="cost", xscale="log", yscale="log")
        else:
            axis.plot(x, dense, "s-", color="grey", label="dense, whole frame")
            axis.plot(x, blocks, "o-", label="blocks, 25 % visible")
            axis.set(xlabel=sweep, ylabel="seconds, forward + backward", xscale="log", yscale="log")
        axis.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        axis.set_xticks(x if sweep != "hidden share" else [0.05, 0.1, 0.25, 0.5, 1])
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.suptitle(f"{backbone}: what is hidden is not computed")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
