"""Masked pairs of frames, and what a model makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from videomac.models.videomac import VideoMAC, VideoMACOutput


@dataclass(frozen=True)
class MaskedPairs:
    """Fixed pairs with fixed masks, centre-cropped, and where they come from."""

    pair: Float[Tensor, "pairs 2 3 height width"]
    mask: Bool[Tensor, "pairs *frame rows columns"]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ReconstructedPairs:
    """A model's reconstruction of the held-out pairs."""

    loss: float
    """Eq. 1 of the online network on the first frames."""
    zero_loss: float
    """The flat-patch baseline: the loss of painting every hidden patch in one flat tone, its own mean.

    About 1 with normalised pixels.
    """
    output: VideoMACOutput


@torch.no_grad()
def reconstruct_pairs(model: VideoMAC, pairs: MaskedPairs) -> ReconstructedPairs:
    """Reconstruct the held-out pairs in eval mode; the model's mode and every random state stay as they were."""
    parameter = next(model.parameters())
    pair, mask = pairs.pair.to(parameter.device, parameter.dtype), pairs.mask.to(parameter.device)
    with evaluating(model):
        output = model(pair, mask)
    patches = model.reconstruction_target(pair[:, 0])
    hidden = (mask if mask.ndim == 3 else mask[:, 0]).flatten(1)
    flat = (patches - patches.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    return ReconstructedPairs(output.online_loss.item(), flat[hidden].mean().item(), output)


class evaluating:
    """Put a module into eval mode within a `with` block."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        """Remember the mode and leave it."""
        self.before = self.module.training
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        """Restore the mode."""
        self.module.train(self.before)


def fitting_size(height: int, width: int, short_side: int, patch_size: int) -> tuple[int, int]:
    """Return the (height, width) nearest to the frame's shape whose sides are multiples of the patch."""
    factor = short_side / min(height, width)
    rows, columns = (max(1, round(side * factor / patch_size)) for side in (height, width))
    return rows * patch_size, columns * patch_size
