"""Which device a command computes on, and in which arithmetic."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Literal

import torch

from videomac.errors import UserError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Lightning's names of the arithmetics that a network may be evaluated in."""


def pick_device(name: str) -> torch.device:
    """Return the device of a name; "auto" takes an accelerator if there is one.

    Raises:
        UserError: there is no such device.
    """
    if name == "auto":
        return torch.device(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"device {name!r} cannot be used ({reason}): try --device cpu") from error


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context in which a network's forward pass has this arithmetic."""
    if precision == "32-true":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16-mixed" else torch.float16)


def torchrun_shape() -> tuple[int, int] | None:
    """Processes on each machine, and machines, where torchrun started this process; else None.

    Raises:
        UserError: the machines have different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    processes, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if processes % local:
        raise UserError(
            f"torchrun started {processes} processes in all and {local} on this machine: "
            "give every machine the same --nproc-per-node"
        )
    return local, processes // local


def usable_cores() -> int:
    """Processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
