"""Which device a command computes on."""

from __future__ import annotations

import torch

from videomac.errors import UserError


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
