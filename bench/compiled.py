"""Forward and backward of the encoder on visible blocks, eager and compiled by Inductor, in turns.

    OMP_NUM_THREADS=1 python bench/compiled.py [--backbones convnextv2_tiny resnet50] [--device cuda]

The mask's layout is prepared beforehand, so that the network is one graph; every round has another mask. Seconds are
medians of the rounds, the ratio the median of the rounds' ratios. Compiling takes minutes. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask


def measure(name: str, batch: int, size: int, rounds: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Seconds of each round, eager and compiled."""
    torch.manual_seed(0)
    network = create_backbone(name).to(device).to(memory_format=torch.channels_last)
    encoder = SparseEncoder(network, mode="blocks")
    frames = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    cells = size // encoder.stride
    modules = (encoder, torch.compile(encoder, fullgraph=True, dynamic=False))
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 2):
        prepared = encoder.prepare(random_mask(batch, (cells, cells)), encoder.stride, device)
        for module, found in zip(modules, times, strict=True):
            encoder.zero_grad()
            start = now(device)
            features: Tensor = module(frames, prepared)
            features.sum().backward()
            if turn > 1:
                found.append(now(device) - start)
    return times


def now(device: torch.device) -> float:
    """The clock, when the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["convnextv2_tiny", "resnet50"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    print("| encoder | eager s | compiled s | eager / compiled |\n|---|---|---|---|")
    for name in options.backbones:
        eager, compiled = measure(name, options.batch, options.size, options.rounds, options.device)
        ratio = statistics.median(a / b for a, b in zip(eager, compiled, strict=True))
        print(
            f"| {name} | {statistics.median(eager):.4f} | {statistics.median(compiled):.4f} | {ratio:.2f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
