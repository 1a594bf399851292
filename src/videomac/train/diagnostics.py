"""What to say when the loss stops being a number, or when the network stops telling frames apart."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.models.videomac import VideoMAC


def require_finite(model: VideoMAC, pair: Tensor, mask: Tensor, loss: Tensor, *, step: int, out: Path) -> None:
    """Stop the run if the loss of this batch is NaN or infinite, before any weight is changed.

    Args:
        model: the model.
        pair: the batch, `[B, 2, 3, H, W]`.
        mask: its masks.
        loss: its loss.
        step: optimizer steps done.
        out: the run's folder.

    Raises:
        UserError: the loss is not finite; names the first module whose output is not, and the last good checkpoint.
    """
    if torch.isfinite(loss):
        return
    checkpoint = out / "checkpoints" / "last.ckpt"
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
    raise UserError(
        f"the loss is {loss.item()} at optimizer step {step + 1}: {first_bad_module(model, pair, mask)}; nothing was "
        f"written over, {kept}; try a lower --base_lr, a longer --warmup_epochs or --precision 32-true"
    )


@torch.no_grad()
def first_bad_module(model: VideoMAC, pair: Tensor, mask: Tensor) -> str:
    """Name what is not finite first, in the order of computation: the frames, a parameter, or a module's output."""
    if not torch.isfinite(pair).all():
        return "the frames of this batch are not finite"
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return f"the weights {name} are not finite, so an earlier step's gradient was not"
    found: list[str] = []
    handles = [
        module.register_forward_hook(_note_if_bad(f"{name} ({type(module).__name__})", found))
        for name, module in model.named_modules()
        if module is not model
    ]
    try:
        model(pair, mask)
    finally:
        for handle in handles:
            handle.remove()
    return f"the first module with a non-finite output is {found[0]}" if found else "every module's output is finite"


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
