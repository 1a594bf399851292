"""Short runs: their options, their curves, and how to interrupt and compare them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch


def options(data: Path, out: Path, /, **changed: Any) -> dict[str, Any]:
    """A run of two epochs of four or five steps, in seconds."""
    return {
        "data": data,
        "backbone": "test_convnext",
        "out": out,
        "image_size": 64,
        "mask_ratio": 0.5,
        "decoder_width": 16,
        "epochs": 2,
        "warmup_epochs": 0.5,
        "global_batch_size": 16,
        "base_lr": 8e-2,
        "workers": 0,
        "held_out": 3,
        "trainer": {"accelerator": "cpu"},
        **changed,
    }


def command(data: Path, out: Path, /, **changed: Any) -> list[str]:
    """The same as words of a command line."""
    values = options(data, out, **changed)
    del values["trainer"]
    flags = [f"--{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "videomac", "pretrain", *flags, "--trainer.accelerator=cpu"]


def rows(out: Path) -> list[dict[str, str]]:
    """The curve of a run."""
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def damaged(video: bytes) -> bytes:
    """An mp4 that opens but shows nothing: its header is at its end, and the pictures in front of it are garbage."""
    start, stop = video.index(b"mdat") + 4, video.index(b"moov") - 4
    return video[:start] + b"\xff" * (stop - start) + video[stop:]


def run_until(arguments: list[str], line: str, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send its whole process group a signal when a line appears, and return status and stderr."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for printed in process.stdout:
        if printed.startswith(line):
            os.killpg(process.pid, number)
            break
    _, errors = process.communicate()
    return process.returncode, errors


def assert_equal(a: object, b: object, where: str) -> None:
    """Equal to the last bit, whatever is nested in what."""
    if isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple) and len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where
