"""Random patch masks (paper, section 3.2 "Masking").

A mask is boolean and True means hidden, everywhere in this package.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from videomac.errors import UserError


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """How many of `num_patches` patches stay visible: `int(num_patches * (1 - mask_ratio) + 1e-6)`, 12 of 49 at 0.75.

    Args:
        num_patches: patches of one frame (rows times columns), at least 1.
        mask_ratio: share of the patches to hide, in [0, 1).

    Raises:
        ValueError: the ratio is outside [0, 1).
        UserError: it is so high that nothing would be visible.
    """
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"mask_ratio must be at least 0 and below 1, got {mask_ratio}")
    # 1e-6 repairs products such as 10 * (1 - 0.9) = 0.9999999999999998, which must count one patch.
    visible = int(num_patches * (1 - mask_ratio) + 1e-6)
    if visible < 1:
        raise UserError(
            f"mask_ratio {mask_ratio} leaves none of {num_patches} patches visible: lower it, or use more patches"
        )
    return visible


def random_mask(
    batch: int,
    grid: tuple[int, int],
    mask_ratio: float = 0.75,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "batch rows columns"]:
    """Hide a random `mask_ratio` of the patches, the same number in every sample but other ones.

    Args:
        batch: number of masks.
        grid: patches per frame as (rows, columns).
        mask_ratio: share of the patches to hide, in [0, 1).
        generator: source of the randomness; the mask is made on its device (without one: CPU and torch's global seed).

    Returns:
        Boolean masks, True = hidden, with exactly `num_visible(rows * columns, mask_ratio)` visible patches each.

    Raises:
        ValueError: the ratio is outside [0, 1), or nothing would be visible.
    """
    rows, columns = grid
    visible = num_visible(rows * columns, mask_ratio)
    device = torch.device("cpu") if generator is None else generator.device
    noise = torch.rand(batch, rows * columns, generator=generator, device=device)
    mask = torch.ones_like(noise, dtype=torch.bool)
    mask.scatter_(1, noise.argsort(dim=1)[:, :visible], False)
    return mask.view(batch, rows, columns)


@dataclass(frozen=True)
class MaskSampler:
    """Draws the masks of pairs of frames; picklable, so that the workers of a data loader can.

    Attributes:
        grid: patches per frame as (rows, columns).
        mask_ratio: share of the patches to hide, in [0, 1).
        symmetric: one mask for both frames of a pair (the paper), or one for each (Table 3d).

    Raises:
        UserError: the ratio hides none of the patches, or all.
    """

    grid: tuple[int, int]
    mask_ratio: float = 0.75
    symmetric: bool = True

    def __post_init__(self) -> None:
        """Refuse masks from which nothing can be learned, before the first one is drawn."""
        patches = self.grid[0] * self.grid[1]
        if num_visible(patches, self.mask_ratio) == patches:
            raise UserError(
                f"mask_ratio {self.mask_ratio} hides none of {patches} patches, so there is nothing to reconstruct: "
                "raise it, or use more patches"
            )

    def __call__(
        self, pairs: int, generator: torch.Generator | None = None
    ) -> Bool[Tensor, "pairs *frames rows columns"]:
        """Return `[pairs, rows, columns]`, or `[pairs, 2, rows, columns]` unless symmetric; see `random_mask`."""
        if self.symmetric:
            return random_mask(pairs, self.grid, self.mask_ratio, generator)
        return random_mask(pairs * 2, self.grid, self.mask_ratio, generator).view(pairs, 2, *self.grid)
