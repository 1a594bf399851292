"""The roofline: how long the arithmetic and the memory traffic of a network take at a device's own ceilings.

A layer can be no faster than its multiplications at the device's peak rate, nor than reading and writing its input,
output and their gradients once. The roofline of a network is the sum over its layers of the slower of the two.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most, as measured.

    Attributes:
        flops: floating-point operations a second of a large matrix product.
        bytes: bytes a second of a large copy, read and written.
    """

    flops: float
    bytes: float


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Best of several large matrix products and copies."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    big = torch.empty(2**30 if device.type == "cuda" else 2**26, device=device, dtype=torch.uint8)
    copied = torch.empty_like(big)
    return Ceilings(
        flops=2 * side**3 / _best(lambda: torch.mm(a, b), device),
        bytes=2 * big.numel() / _best(lambda: copied.copy_(big), device),
    )


def roofline_seconds(
    network: nn.Module, frames: Float[Tensor, "1 3 height width"], ceilings: Ceilings, dtype: torch.dtype
) -> float:
    """Seconds of forward and backward of one whole frame; the visible share of it is that of its visible positions."""
    return sum(roofline_by_stage(network, frames, ceilings, dtype).values())


@torch.no_grad()
def roofline_by_stage(
    network: nn.Module, frames: Float[Tensor, "1 3 height width"], ceilings: Ceilings, dtype: torch.dtype
) -> dict[str, float]:
    """The roofline of each of the network's children (or of the children of its `stages`), by name, in seconds."""
    seconds: dict[str, float] = defaultdict(float)

    def hook(name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
                return
            arithmetic = 3 * _flops(module, output) / ceilings.flops  # forward, and twice as much backward
            # Forward reads and writes; backward reads both the input and the output's gradient and writes the input's.
            traffic = (3 * inputs[0].numel() + 2 * output.numel()) * dtype.itemsize / ceilings.bytes
            seconds[name] += max(arithmetic, traffic)

        return count

    leaves = [(name, m) for name, m in network.named_modules() if next(m.children(), None) is None]
    handles = [
        module.register_forward_hook(hook(_stage(name)))
        for name, module in leaves
        if not isinstance(module, nn.Identity)
    ]
    try:
        network.forward_features(frames)  # type: ignore[operator]
    finally:
        for handle in handles:
            handle.remove()
    return dict(seconds)


def _stage(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "stages" else parts[0]


def _flops(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return 2 * output.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return 2 * output.numel() * module.in_features
    return 0


def _best(function: Any, device: torch.device, times: int = 7) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        function()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
