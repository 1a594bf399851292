"""One pre-training step of each network of Table 2 on the CPU: time and peak memory of the process.

    python benchmarks/step.py --batch 4

Each network runs in a process of its own: online forward and backward, target forward, both decoders, losses, AdamW,
EMA.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

TABLE_2 = ["convnextv2_small_isotropic", "resnet18", "resnet50", "convnextv2_tiny", "convnextv2_small"]


def measure(name: str, batch: int, steps: int, threads: int) -> str:
    import torch

    from videomac import VideoMAC
    from videomac.optim import parameter_groups

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = VideoMAC(name)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.05), lr=1e-4, betas=(0.9, 0.95))
    pair = torch.randn(batch, 2, 3, 224, 224)
    times, loss = [], torch.tensor(float("nan"))
    for step in range(steps + 1):
        mask = model.sample_mask(batch, (224, 224), generator=torch.Generator().manual_seed(step))
        start = time.perf_counter()
        loss = model(pair, mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_target(0.996)
        times.append(time.perf_counter() - start)
    assert torch.isfinite(loss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    median, mode = statistics.median(times[1:]), model.online.encoder.mode
    return f"| {name} | {mode} | {median:.2f} s | {peak:.2f} GiB | {loss.item():.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=TABLE_2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.batch, options.steps, options.threads), flush=True)
        return
    print(f"224 px, batch {options.batch}, float32, {options.threads} threads, median of {options.steps} steps")
    print("| network | mode | step | peak memory of the process | loss after the last step |")
    print("|---|---|---|---|---|", flush=True)
    for name in options.networks:
        command = [sys.executable, __file__, "--one", name, "--batch", str(options.batch)]
        subprocess.run([*command, "--steps", str(options.steps), "--threads", str(options.threads)], check=True)


if __name__ == "__main__":
    main()
