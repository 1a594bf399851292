"""Run kernel_resources.py with the oldest Triton that videomac's range of PyTorch brings (torch 2.8: Triton 3.4.0).

    python bench/oldest_triton.py [--triton 3.4.0] [arguments of kernel_resources.py]

The version is installed into a temporary folder (some 600 MB); the environment stays as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", default="3.4.0")
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        install = ["pip", "install", "--quiet", "--no-deps", "--target", folder, f"triton=={options.triton}"]
        subprocess.run([sys.executable, "-m", *install], check=True)
        script = [sys.executable, str(Path(__file__).with_name("kernel_resources.py")), *others]
        return subprocess.run(script, env={**os.environ, "PYTHONPATH": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
