"""Compile the Triton kernels for GPUs that need not be there, and print registers, spills and possible occupancy.

    python bench/kernel_resources.py [--arch 80 90 100] [--all] [--json]

Every depthwise convolution that ConvNeXt (7x7, dilated at a finer output stride), EfficientNet and MobileNet (3x3, 5x5)
ask for goes through ptxas to a cubin, whose resources the wheel's cuobjdump reads. Without --all each pair of shape,
precision and architecture comes up, not each combination. It needs no GPU. Prints Markdown, one line for a kernel on an
architecture: the worst of its shapes. Exit status 1 if a kernel spills registers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.pop("TRITON_INTERPRET", None)  # before the first import of Triton

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from videomac.sparse import triton_kernels as kernels

ARCHITECTURES = (80, 90, 100)
SHAPES = [(7, p, 1) for p in (8, 4, 2, 1)] + [(k, p, 1) for k in (3, 5) for p in (16, 8, 4, 2, 1)]
SHAPES += [(7, 2, 2), (7, 4, 4)]
"""Kernel size, P of the blocks, and dilation."""
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WARPS = 4
REGISTERS, MOST_THREADS = 65536, 2048
"""Of one multiprocessor, for all of `ARCHITECTURES`."""


class Case(NamedTuple):
    """One compilation."""

    kernel: str
    size: int
    p: int
    dilation: int
    dtype: str
    arch: int


class Resources(NamedTuple):
    """What the machine code of one kernel takes: registers a thread, and bytes."""

    registers: int
    spilled: int
    shared: int

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's threads that its registers allow to be there at once."""
        warps = REGISTERS // (-(-self.registers // 8) * 8 * 32)  # registers are given out by eights
        return min(1.0, warps // WARPS * WARPS * 32 / MOST_THREADS)


def cases(every: bool, architectures: tuple[int, ...] = ARCHITECTURES) -> Iterator[Case]:
    """All combinations, or a third of them in which every pair of shape, precision and architecture comes up."""
    dtypes = [str(dtype).removeprefix("torch.") for dtype in kernels.DTYPES]
    numbered = itertools.product(enumerate(SHAPES), enumerate(dtypes), enumerate(architectures))
    for (i, shape), (j, dtype), (k, arch) in numbered:
        if every or (i + j + k) % len(dtypes) == 0:
            yield from (Case(kernel, *shape, dtype, arch) for kernel in ("depthwise", "weight_gradient"))


def compile_case(case: Case, folder: Path) -> Resources:
    """Through ptxas to a cubin, as a launch on contiguous tensors of a multiple of 16 channels would."""
    pointer, window = f"*{DTYPES[case.dtype]}", case.p + case.dilation * (case.size - 1)
    constants: dict[str, Any] = {"P": case.p, "HIGH": case.size, "WIDE": case.size}
    constants["DILATION"] = case.dilation
    constants |= {"WINDOW_HEIGHT": window, "WINDOW_WIDTH": window, "CHANNELS": kernels.CHANNELS}
    if case.kernel == "depthwise":
        kernel = kernels._depthwise_kernel
        arguments = {name: pointer for name in ("rows", "taps", "bias", "result")}
        # The forward pass has a bias, the input's gradient a turned kernel: their sum, the most that one can need.
        constants |= {"HAS_BIAS": True, "TURNED": True, "POSITIONS": kernels.POSITIONS}
    else:
        kernel = kernels._weight_gradient_kernel
        arguments = {"rows": pointer, "gradient": pointer, "partial": "*fp32", "share": "i32"}
        constants["TAPS"] = triton.next_power_of_2(case.size**2)
    arguments |= {"table": "*i32", "positions": "i32", "channels": "i32"}
    signature = {name: arguments.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {
        (number,): [["tt.divisibility", 16]]
        for number, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name == "channels"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", case.arch, 32), options={"num_warps": WARPS})
    return read_resources(compiled.asm["cubin"], folder)


def read_resources(cubin: bytes, folder: Path) -> Resources:
    """Ask cuobjdump; a thread's stack and local memory are where spilled registers go."""
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    said = subprocess.run([tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", said)}
    return Resources(found["REG"], found["STACK"] + found["LOCAL"], found["SHARED"])


def table(found: dict[Case, Resources]) -> str:
    """Markdown: for each kernel and architecture the worst of its shapes and precisions."""
    lines = ["| kernel | size | architecture | registers a thread | spilled bytes | occupancy |", "|---" * 6 + "|"]
    groups = sorted({(case.kernel, case.size, case.arch) for case in found})
    for group in groups:
        of = [resources for case, resources in found.items() if (case.kernel, case.size, case.arch) == group]
        registers, spilled = (sorted({getattr(r, name) for r in of}) for name in ("registers", "spilled"))
        kernel, size, arch = group
        lines.append(
            f"| {kernel} | {size}x{size} | sm_{arch} | {registers[0]} to {registers[-1]} | {spilled[-1]} "
            f"| {min(r.occupancy for r in of):.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", type=int, nargs="+", default=ARCHITECTURES)
    parser.add_argument("--all", action="store_true", help="every combination, some minutes")
    parser.add_argument("--json", action="store_true", help="print what was found of each case")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        found = {case: compile_case(case, Path(folder)) for case in cases(options.all, tuple(options.arch))}
    if options.json:
        print(json.dumps([{**case._asdict(), **resources._asdict()} for case, resources in found.items()]))
    else:
        print(f"Triton {triton.__version__}, {len(found)} compilations, {WARPS} warps a program\n\n{table(found)}")
    if any(resources.spilled for resources in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
