"""Patches and the two losses on them (paper, Eq. 1 and 2).

A frame's patches are vectors of `patch_size * patch_size * 3` values that run (row, column, channel). Every loss is a
mean over the values of a patch and over hidden patches, accumulated in float32 at least.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def patchify(frames: Float[Tensor, "batch 3 height width"], patch_size: int) -> Float[Tensor, "batch patches values"]:
    """Cut frames into square patches, row by row; the values of a patch run (row, column, channel).

    Raises:
        ValueError: height or width is not a multiple of `patch_size`.
    """
    batch, channels, height, width = frames.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"frames of {height}x{width} pixels cannot be cut into patches of {patch_size}")
    rows, columns = height // patch_size, width // patch_size
    patches = frames.reshape(batch, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 3, 5, 1)
    return patches.reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(
    patches: Float[Tensor, "batch patches values"], grid: tuple[int, int]
) -> Float[Tensor, "batch 3 height width"]:
    """The inverse of `patchify`, for frames of `grid` = (rows, columns) patches."""
    rows, columns = grid
    patch_size = round((patches.shape[-1] / 3) ** 0.5)
    frames = patches.reshape(-1, rows, columns, patch_size, patch_size, 3).permute(0, 5, 1, 3, 2, 4)
    return frames.reshape(-1, 3, rows * patch_size, columns * patch_size)


def normalize_patches(patches: Float[Tensor, "batch patches values"]) -> Float[Tensor, "batch patches values"]:
    """Give each patch mean 0 and variance 1 over its values (unbiased variance, 1e-6 inside the root).

    This is what a reconstruction should equal ("normalized pixels", section 3.2); a flat patch becomes 0.
    """
    patches = _at_least_float32(patches)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def reconstruction_loss(
    prediction: Float[Tensor, "batch patches values"],
    target_patches: Float[Tensor, "batch patches values"],
    mask: Bool[Tensor, "batch rows columns"],
) -> Float[Tensor, ""]:
    """Eq. 1: mean squared error over the hidden patches (0 where nothing is hidden)."""
    error = (_at_least_float32(prediction) - _at_least_float32(target_patches)).square().mean(dim=-1)
    hidden = mask.flatten(1)
    return torch.where(hidden, error, 0.0).sum() / hidden.sum().clamp(min=1)


def consistency_loss(
    prediction_a: Float[Tensor, "batch patches values"],
    prediction_b: Float[Tensor, "batch patches values"],
    mask: Bool[Tensor, "batch rows columns"],
) -> Float[Tensor, ""]:
    """Eq. 2: mean squared difference of two reconstructions over the patches that `mask` hides.

    With asymmetric masks pass the patches hidden in both frames; where there are none the loss is 0.
    """
    return reconstruction_loss(prediction_a, prediction_b, mask)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
