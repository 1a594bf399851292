"""What the visible quarter costs: blocks against masked dense and the plain dense network, forward and backward.

    python benchmarks/encoder.py --networks convnextv2_tiny resnet50 --threads 1

The three run in turn in one process, on the same weights, frames and mask (224 px, 75 % hidden); the figures are
medians, the ratios medians of the ratios of one round. "masked" counts as at most 1.15 times "dense": a clumsy
reference earns no speed-up.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor

import videomac.backbones  # noqa: F401  (our own networks, by name)
from videomac.encoder import SparseEncoder
from videomac.masking import random_mask


def seconds(run: Callable[[], Tensor]) -> float:
    """Forward and backward, from the call to the last gradient."""
    start = time.perf_counter()
    run().sum().backward()
    return time.perf_counter() - start


def measure(name: str, batch: int, rounds: int) -> str:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).to(memory_format=torch.channels_last)
    dense = copy.deepcopy(network)
    blocks = SparseEncoder(copy.deepcopy(network), mode="blocks")
    masked = SparseEncoder(network, mode="masked")
    frames = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    mask = random_mask(batch, (224 // blocks.stride, 224 // blocks.stride), 0.75)
    runs = {
        "blocks": (blocks, lambda: blocks(frames, mask)),
        "masked": (masked, lambda: masked(frames, mask)),
        "dense": (dense, lambda: dense.forward_features(frames)),
    }
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(rounds + 1):
        for kind, (module, run) in runs.items():
            module.zero_grad()
            times[kind].append(seconds(run))
    times = {kind: values[1:] for kind, values in times.items()}  # the first round warms up
    against_masked = [min(m, 1.15 * d) / b for b, m, d in zip(*times.values(), strict=True)]
    against_dense = [d / b for b, _, d in zip(*times.values(), strict=True)]
    medians = [statistics.median(values) for values in times.values()]
    ratios = [statistics.median(against_masked), statistics.median(against_dense)]
    cells = [name, *(f"{m:.3f}" for m in medians), *(f"{r:.2f}x" for r in ratios), f"{os.getloadavg()[0]:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["convnextv2_tiny", "resnet50"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), batch {options.batch}, "
        f"{options.rounds} rounds, seconds"
    )
    print("| network | blocks | masked | dense | masked / blocks | dense / blocks | load |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        print(measure(name, options.batch, options.rounds), flush=True)


if __name__ == "__main__":
    main()
