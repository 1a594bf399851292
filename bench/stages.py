"""Forward and backward of the encoder on visible blocks (or masked), stage by stage, beside the roofline of each stage.

    OMP_NUM_THREADS=1 python bench/stages.py [--backbones convnextv2_tiny resnet50] [--mode masked] [--device cuda]

A stage ends forward when its output is there, and backward when the gradient of its input is. Medians of the rounds;
the roofline is that of `videomac bench`. Prints Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import defaultdict

import torch
from torch import Tensor, nn

from videomac.bench.roofline import measure_ceilings, roofline_by_stage
from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask


def stages_of(network: nn.Module) -> dict[str, nn.Module]:
    """The network's children in order, those of `stages` one by one."""
    stages: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        inner = {f"{name}.{key}": stage for key, stage in child.named_children()} if name == "stages" else {name: child}
        stages |= inner
    return {name: stage for name, stage in stages.items() if not isinstance(stage, nn.Identity)}


def measure(encoder: SparseEncoder, frames: Tensor, mask: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of each stage, medians of the rounds."""

    def now() -> float:
        if frames.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    done: list[tuple[str, float]] = []  # stages in the order in which they end, forward then backward
    ran: list[str] = []

    def after(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            done.append((name, now()))
            output.register_hook(lambda gradient: done.append((name, now())))  # backward of this stage begins
            ran.append(name)

        return hook

    handles = [module.register_forward_hook(after(name)) for name, module in stages_of(encoder.backbone).items()]
    times: dict[str, list[float]] = defaultdict(list)
    for round_ in range(rounds + 1):
        done.clear(), ran.clear(), encoder.zero_grad()
        begin = now()
        features = encoder(frames, mask)
        forward = list(done)
        torch.autograd.backward(features.sum())
        backward = [*done[len(forward) :], ("", now())]
        seconds: dict[str, float] = defaultdict(float)
        for name, end in forward:
            seconds[name] += end - begin
            begin = end
        for (name, begun), (_, end) in itertools.pairwise(backward):
            seconds[name] += end - begun
        if round_:
            for name in ran:
                times[name].append(seconds[name])
    for handle in handles:
        handle.remove()
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["convnextv2_tiny", "resnet50"])
    parser.add_argument("--mode", default="blocks", choices=("blocks", "masked"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    ceilings = measure_ceilings(device, torch.float32)
    print("| stage | seconds | roofline | measured / roofline |\n|---|---|---|---|")
    for backbone in options.backbones:
        torch.manual_seed(0)
        network = create_backbone(backbone).to(device).to(memory_format=torch.channels_last)
        frames = torch.randn(options.batch, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
        rooflines = roofline_by_stage(network, frames[:1], ceilings, torch.float32)
        encoder = SparseEncoder(network, mode=options.mode)
        mask = random_mask(options.batch, (224 // encoder.stride,) * 2, 0.75)
        visible = options.batch * (~mask).float().mean().item()
        for name, seconds in measure(encoder, frames, mask, options.rounds).items():
            roofline = rooflines[name] * visible
            print(f"| {backbone} {name} | {seconds:.4f} | {roofline:.4f} | {seconds / roofline:.1f}x |")


if __name__ == "__main__":
    main()
