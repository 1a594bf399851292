"""Fig. 2: where the reconstruction looks.

The paper shows heat maps and does not say how they were made. Here the question is taken literally: how much does a
pixel that the network sees change what it paints into the patches that it does not see? That is a derivative, so it is
measured as one, with no choice of a layer, a target or an interesting patch.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from videomac.masking import num_visible
from videomac.model import MaskedAutoencoder

CELLS_PER_STRIDE = 4
"""Resolution of the map: a patchify stem of stride 4 treats its pixels unequally, which would show as a fine grid."""


def covering_masks(
    count: int, grid: tuple[int, int], mask_ratio: float, generator: torch.Generator
) -> Bool[Tensor, "masks rows columns"]:
    """At least `count` random masks which together show every patch about equally often, and at least once.

    Each round deals the shuffled patches out, so many to a mask as are visible.
    """
    patches = grid[0] * grid[1]
    visible = num_visible(patches, mask_ratio)
    masks: list[Tensor] = []
    while len(masks) < count:
        order = torch.randperm(patches, generator=generator)
        for start in range(0, patches, visible):
            shown = order[torch.arange(start, start + visible) % patches]
            masks.append(torch.ones(patches, dtype=torch.bool).index_fill(0, shown, False).view(grid))
    return torch.stack(masks)


def sensitivity(
    network: MaskedAutoencoder,
    frame: Float[Tensor, "3 height width"],
    masks: Bool[Tensor, "masks rows columns"],
    *,
    draws: int = 4,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "masks height width"]:
    """How much each pixel changes the reconstruction of the hidden patches, squared.

    With the Jacobian J of all hidden values with respect to a pixel's three colours, this is |J|^2 (Frobenius) divided
    by the number of hidden values: the mean squared change of a hidden value for a unit change of the pixel. The full
    Jacobian is never built: for random v of unit variance the mean of |v J|^2 is |J|^2.

    Args:
        network: encoder and decoder, in eval mode.
        frame: ImageNet-normalised.
        masks: True = hidden.
        draws: random directions for each mask.
        generator: of the directions, on the CPU.

    Returns:
        One map a mask; exactly 0 in hidden patches, which are never read.
    """
    maps = []
    for mask in masks[:, None]:
        pixels = frame[None].clone().requires_grad_(True)
        prediction = network(pixels, mask)
        hidden = mask.flatten(1).to(prediction.device)[..., None].expand_as(prediction)
        total = torch.zeros_like(frame[0])
        for draw in range(draws):
            direction = torch.randn(prediction.shape, generator=generator).to(prediction) * hidden
            (gradient,) = torch.autograd.grad((prediction * direction).sum(), pixels, retain_graph=draw + 1 < draws)
            total += gradient[0].square().sum(0)
        maps.append(total / draws / hidden.sum())
    return torch.stack(maps)


def heat_map(
    sensitivities: Float[Tensor, "masks height width"], masks: Bool[Tensor, "masks rows columns"], cell: int
) -> Float[Tensor, "rows columns"]:
    """Average over the masks that show a pixel, and over square cells; the root of it, in units of hidden values.

    Args:
        sensitivities: what `sensitivity` returns.
        masks: the masks.
        cell: side of a cell in pixels.
    """
    patch = sensitivities.shape[1] // masks.shape[1]
    seen = (~masks).sum(0).repeat_interleave(patch, 0).repeat_interleave(patch, 1).to(sensitivities)
    mean = sensitivities.sum(0) / seen.clamp(min=1)
    return torch.nn.functional.avg_pool2d(mean[None], cell)[0].sqrt()


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two maps."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])
