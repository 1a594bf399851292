"""Time and memory of label propagation, against the same with the full affinity matrix.

    OMP_NUM_THREADS=1 python bench/propagation.py [--channels 256] [--device cuda]

One frame of 480 x 854 at stride 8 (60 x 107 cells) with frame 0 and 7 more as context, window radius 12, top 5. The two
are timed in turns; the medians of the rounds are compared. Memory is what a fresh process needs at its peak beyond what
it had before (the peak of the allocator on a GPU).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from videomac.evaluate.propagation import propagate

GRID, CONTEXT, RADIUS, TOPK, TEMPERATURE = (60, 107), 7, 12, 5, 0.1


def full_affinity(features: Tensor, labels: Tensor) -> Tensor:
    """The last frame's labels from frame 0 and the 7 before it, the plain way (`labels` are those of the context)."""
    normalized = F.normalize(features, dim=1).flatten(2)
    height, width = GRID
    y, x = torch.arange(height, device=features.device), torch.arange(width, device=features.device)
    inside = (y[:, None] - y).abs()[:, None, :, None].le(RADIUS) & (x[:, None] - x).abs()[None, :, None, :].le(RADIUS)
    inside = inside.reshape(height * width, height * width)
    context = normalized[:-1].transpose(0, 1).flatten(1)  # [C, frames * cells]
    affinity = normalized[-1].T @ context
    affinity.view(height * width, -1, height * width).masked_fill_(~inside[:, None], -torch.inf)
    values, index = affinity.topk(TOPK, dim=1)
    weights = torch.softmax(values / TEMPERATURE, dim=1)
    votes = labels.transpose(0, 1).flatten(1)[:, index]  # [L, cells, K]
    return (votes * weights).sum(-1).view(-1, height, width)


def make(channels: int, device: str) -> tuple[Tensor, Tensor]:
    """A video whose last frame has frame 0 and 7 others as context."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(CONTEXT + 2, channels, *GRID, generator=generator)
    labels = F.one_hot(torch.randint(0, 3, GRID, generator=generator), 3).movedim(-1, 0).float()
    return features.to(device), labels.to(device)


def run_tiled(features: Tensor, maps: Tensor) -> Tensor:
    """Our propagation of the same one frame."""
    from videomac.evaluate.propagation import _Search
    from videomac.evaluate.protocols import PropagationSettings

    search = _Search(
        PropagationSettings(context_frames=CONTEXT, topk=TOPK, radius=RADIUS, temperature=TEMPERATURE),
        features.shape[1:], maps.shape[1],
        torch.float32, features.device,
    )  # fmt: skip
    for index in range(len(maps)):
        search.store(index, features[index], maps[index])
    return search(features[-1], windowed=list(range(CONTEXT + 1)), unlimited=[])


def process_memory(key: str) -> int:
    """Kilobytes of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak_memory(method: str, channels: int, device: str) -> float:
    """Megabytes that one frame needs at its peak, in this process."""
    features, labels = make(channels, device)
    maps = labels.expand(CONTEXT + 1, -1, -1, -1).contiguous()
    function = {"full": full_affinity, "tiled": run_tiled}[method]
    if device == "cpu":
        torch.zeros(8, 8) @ torch.zeros(8, 8)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = process_memory("VmRSS")
        function(features, maps)
        return (process_memory("VmHWM") - before) / 1024
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function(features, maps)
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=["full", "tiled"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, arguments.channels, arguments.device))
        return
    features, labels = make(arguments.channels, arguments.device)
    settings = {"context_frames": CONTEXT, "topk": TOPK, "radius": RADIUS, "temperature": TEMPERATURE}
    maps = propagate(features, labels, **settings)
    times: dict[str, list[float]] = {"full": [], "tiled": []}
    results = {}
    for _ in range(arguments.rounds):
        for name, function in (("full", full_affinity), ("tiled", run_tiled)):
            start = time.perf_counter()
            results[name] = function(features, maps[:-1])
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    torch.testing.assert_close(results["tiled"], results["full"], rtol=0, atol=1e-4)
    memory = {}
    for name in times:
        command = [sys.executable, __file__, "--memory-of", name]
        command += ["--channels", str(arguments.channels), "--device", arguments.device]
        memory[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ratio = statistics.median(a / b for a, b in zip(times["full"], times["tiled"], strict=True))
    for name in times:
        print(f"{name:6} {statistics.median(times[name]):7.3f} s a frame   {memory[name]:7.0f} MB at the peak")
    print(f"{ratio:.1f} times faster, {memory['full'] / memory['tiled']:.1f} times leaner")


if __name__ == "__main__":
    main()
