"""Everything that a GPU must show, in one command: `make bench-gpu`, or python bench/gpu.py --out OUT.

First the checks (each kernel against the plain path, the engine on the device, bfloat16 against float32, a step that
never waits), then the measurements. Each part is a process of its own with a time limit, so that one that fails, hangs
or takes the driver down costs no other; what it printed is kept in OUT. Under ten minutes in all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

NETWORKS = "[convnextv2_tiny,convnextv2_small,convnext_tiny,resnet50,resnet50_patchify,resnet18]"


@dataclass(frozen=True)
class Part:
    """One process."""

    name: str
    arguments: list[str]
    seconds: int


def parts(out: Path, device: str, batch: int) -> list[Part]:
    """Checks first, then measurements, the important ones first."""
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    bench = [
        "-m",
        "videomac",
        "bench",
        "--overwrite",
        f"--device={device}",
        "--precision=bf16-mixed",
        f"--batch={batch}",
    ]
    eager, compiled, step = (out / name for name in ("eager", "compiled", "step"))
    return [
        Part("kernels against the plain path", [*pytest, "tests/sparse/test_functional.py"], 90),
        Part("the engine, bf16 and a step on the device", [*pytest, "-m", "gpu", "tests"], 90),
        Part("whole step", [*bench, f"--out={step}", "--backbones=[]", "--steps=[convnextv2_small,resnet50]"], 60),
        Part("encoders", [*bench, f"--out={eager}", f"--backbones={NETWORKS}", "--steps=[]"], 110),
        Part(
            "encoders, compiled",
            [*bench, f"--out={compiled}", "--backbones=[convnextv2_tiny,resnet50]", "--steps=[]", "--compile=true"],
            180,
        ),
        Part("propagation", ["bench/propagation.py", f"--device={device}"], 45),
    ]


def run(part: Part, out: Path) -> str:
    """Run a part, showing what it prints and keeping it; return how it ended."""
    log = out / f"{part.name.replace(', ', '-').replace(' ', '-')}.txt"
    print(f"\n== {part.name} (at most {part.seconds} s): python {' '.join(part.arguments)}", flush=True)
    start = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, *part.arguments], stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait(part.seconds)
            ended = "done" if status == 0 else f"FAILED, status {status}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = f"STOPPED after {part.seconds} s"
        except KeyboardInterrupt:
            process.kill()
            raise
    print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))
    return f"{ended} ({time.monotonic() - start:.0f} s), {log}"


def main() -> int:
    """Run all parts; status 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here: run it where there is one")
    options.out.mkdir(parents=True, exist_ok=True)
    ended: dict[str, str] = {}
    try:
        for part in parts(options.out, options.device, options.batch):
            ended[part.name] = run(part, options.out)
    finally:
        print("\n== in all")
        for name, how in ended.items():
            print(f"{name:<45}{how}")
    return int(any(not how.startswith("done") for how in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
