"""What to say when the loss stops being a number, or when the network stops telling frames apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from videomac.errors import UserError


def bad_step(step: int, loss: float, where: str, out: Path) -> UserError:
    """The error that ends a run in which loss or gradient of a step is NaN or infinite; that step changed no weight.

    Args:
        step: number of the optimizer step, from 1.
        loss: its loss.
        where: what was not finite first.
        out: the run's folder.
    """
    checkpoint = out / "checkpoints" / "last.ckpt"
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
    what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    return UserError(
        f"{what} at optimizer step {step}: {where}; no weight was changed, {kept}; "
        "try a lower --base_lr, a longer --warmup_epochs or --precision 32-true"
    )


@torch.no_grad()
def first_bad_module(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """Name what is not finite first, in the order of computation: a weight, or the output of a module.

    Args:
        model: the model; its buffers are not looked at, for a bad batch has already gone through them.
        forward: runs it.

    Returns:
        None if everything is finite.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name} is not finite"
    found: list[str] = []
    handles = [
        module.register_forward_hook(_note_if_bad(f"{name} ({type(module).__name__})", found))
        for name, module in model.named_modules()
        if module is not model
    ]
    try:
        forward()
    finally:
        for handle in handles:
            handle.remove()
    return f"the first module with a non-finite output is {found[0]}" if found else None


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Refuse to save a model that holds a NaN or infinite number.

    Raises:
        UserError: names the first such tensor.
    """
    buffers = dict(model.named_buffers())
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            why = ", a statistic of BatchNorm, whose input has become too large," if name in buffers else ""
            raise UserError(
                f"{name}{why} is not finite after optimizer step {step}: no checkpoint was written over; "
                "try a lower --base_lr or a longer --warmup_epochs"
            )


def _note_if_bad(label: str, found: list[str]):  # type: ignore[no-untyped-def]
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        tensors = output if isinstance(output, tuple | list) else [output]
        if not found and any(torch.is_tensor(tensor) and not torch.isfinite(tensor).all() for tensor in tensors):
            found.append(label)

    return hook


class CollapseWatch:
    """Tells once when the spread of the online features falls to a hundredth of its largest value so far."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.warned = False

    def update(self, feature_std: float, step: int) -> str | None:
        """Take the spread after an optimizer step; return a warning the first time it has collapsed."""
        self.largest = max(self.largest, feature_std)
        if self.warned or feature_std >= self.largest / 100:
            return None
        self.warned = True
        return (
            f"step {step}: the features have collapsed (their standard deviation fell from {self.largest:.3g} to "
            f"{feature_std:.3g}), so the network hardly tells frames apart: try a lower base_lr or gamma"
        )
