"""The Triton kernels, compiled for GPUs that need not be here: through ptxas to machine code that spills no register.

The other tests run them in Triton's interpreter, which takes much that the compiler refuses. So this one compiles, in a
process of its own without the interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from videomac.sparse import triton_kernels as kernels

SCRIPT = Path(__file__).parents[2] / "bench" / "kernel_resources.py"
WANTED = {(7, 8, 1), (7, 4, 1), (7, 2, 1), (7, 1, 1), (7, 2, 2), (7, 4, 4), (3, 16, 1), (3, 1, 1), (5, 4, 1), (5, 1, 1)}

pytestmark = pytest.mark.skipif(kernels.triton is None, reason="Triton is not installed")


def compile_them(tmp_path: Path, *arguments: str) -> list[dict[str, object]]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--json", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] or done.stdout
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_every_kernel_compiles_and_spills_nothing(tmp_path: Path) -> None:
    found = compile_them(tmp_path)
    assert all(case["spilled"] == 0 and case["registers"] for case in found)
    for kernel in ("depthwise", "weight_gradient"):
        of = [case for case in found if case["kernel"] == kernel]
        shapes = {(case["size"], case["p"], case["dilation"]) for case in of}
        dtypes = {str(dtype).removeprefix("torch.") for dtype in kernels.DTYPES}
        assert shapes >= WANTED
        # Every pair of architecture, precision and shape.
        assert {(case["dtype"], case["arch"]) for case in of} == {(d, a) for d in dtypes for a in (80, 90, 100)}
        assert {(case["size"], case["p"], case["dilation"], case["arch"]) for case in of} == {
            (*shape, arch) for shape in shapes for arch in (80, 90, 100)
        }
        assert {(case["size"], case["p"], case["dilation"], case["dtype"]) for case in of} == {
            (*shape, dtype) for shape in shapes for dtype in dtypes
        }


@pytest.mark.slow
def test_every_combination_compiles(tmp_path: Path) -> None:
    found = compile_them(tmp_path, "--all")
    assert len(found) == 2 * 16 * 3 * 3
    assert not any(case["spilled"] for case in found)
