"""What a finer stride costs, and what the paths for dilated convolutions gain over windows that autograd knows.

    OMP_NUM_THREADS=1 python bench/output_stride.py [convnextv2_atto resnet50]

Forward and backward of the encoder in training: 8 frames of 128 pixels, patches of 32, 75 % hidden. The variants take
turns on the same frames and mask; printed are the medians of the ratios of each round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import torch

from videomac.models.encoder import Mode, SparseEncoder
from videomac.models.masking import random_mask
from videomac.sparse.mixing import HaloConv2d


def encoder(name: str, stride: int, mode: Mode = "blocks") -> SparseEncoder:
    """An encoder in training, as `pretrain` lays it out in memory."""
    torch.manual_seed(0)
    return SparseEncoder(name, mode, stride).to(memory_format=torch.channels_last).train()


def seconds(network: SparseEncoder, frames: torch.Tensor, mask: torch.Tensor, on_windows: bool) -> float:
    """Time of one step; on windows neither a depthwise convolution nor a matrix product has a path of its own."""
    windows = {"columns_up_to": 0, "_depthwise": lambda layer: False} if on_windows else {}
    network.zero_grad()
    with mock.patch.multiple(HaloConv2d, **windows) if windows else mock.MagicMock():
        start = time.perf_counter()
        torch.autograd.backward(network(frames, mask).sum())
        return time.perf_counter() - start


def measure(name: str, rounds: int) -> None:
    """Print a line for each variant of one network."""
    frames = torch.randn(8, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    mask = random_mask(8, (4, 4), generator=torch.Generator().manual_seed(0))
    variants = {"32": (encoder(name, 32), False)}
    for stride in (16, 8):
        blocks = encoder(name, stride)
        variants[f"{stride}"] = (blocks, False)
        variants[f"{stride}, windows alone"] = (blocks, True)
        variants[f"{stride}, masked dense"] = (encoder(name, stride, "masked"), False)
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(rounds + 1):
        for variant, (network, on_windows) in variants.items():
            times[variant].append(seconds(network, frames, mask, on_windows))

    def ratio(variant: str, to: str) -> float:
        pairs = zip(times[variant][1:], times[to][1:], strict=True)
        return statistics.median(a / b for a, b in pairs)

    for variant in variants:
        own = variant.split(",")[0]
        print(f"{name}, {variant:<20} {ratio(variant, '32'):6.2f} x stride 32 {ratio(variant, own):6.2f} x blocks")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["convnextv2_atto", "resnet50"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    for network_name in options.networks:
        measure(network_name, options.rounds)
