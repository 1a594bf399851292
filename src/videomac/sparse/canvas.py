"""Masked dense: the meaning of the engine, computed on the whole canvas.

The same network runs on whole frames. Before every layer that mixes positions hidden cells are set (with
`torch.where`, never by multiplication: NaN and infinity would survive it), statistics are taken over visible
positions, and the output is exactly 0 where hidden. It is the reference that blocks mode must equal, and it serves
networks that blocks mode does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


def upsample_mask(
    mask: Shaped[Tensor, "*batch rows columns"], size: Sequence[int]
) -> Shaped[Tensor, "*batch height width"]:
    """From patches to the cells (or pixels) of a map: each cell gets what its patch has.

    Args:
        mask: one value a patch.
        size: (height, width) of the map.

    Raises:
        ValueError: the map does not divide into the patches.
    """
    (height, width), (rows, columns) = size, mask.shape[-2:]
    if height % rows or width % columns:
        raise ValueError(f"a {height}x{width} map does not divide into {rows}x{columns} patches")
    return mask.repeat_interleave(height // rows, dim=-2).repeat_interleave(width // columns, dim=-1)


class MaskedCanvas:
    """The mask of one batch of whole frames, at every resolution a network asks for.

    Args:
        mask: True = hidden; at least one visible patch in every sample, not necessarily as many in each.
        device: where the frames are.

    Raises:
        ValueError: a sample shows no patch.
    """

    def __init__(self, mask: Bool[Tensor, "batch rows columns"], device: torch.device | None = None) -> None:
        self.batch, self.rows, self.columns = mask.shape
        self.counts: list[int] = (~mask).flatten(1).sum(dim=1).tolist()
        if min(self.counts) < 1:
            raise ValueError(f"every sample needs at least 1 visible patch, sample {self.counts.index(0)} has none")
        self.mask = mask.to(device if device is not None else mask.device)
        self._visible: dict[tuple[int, int], Tensor] = {}
        self._positions: dict[tuple[int, int], Tensor] = {}

    def visible(self, height: int, width: int) -> Bool[Tensor, "batch 1 height width"]:
        """Which cells of a map of this size are visible."""
        if (height, width) not in self._visible:
            self._visible[height, width] = ~upsample_mask(self.mask, (height, width))[:, None]
        return self._visible[height, width]

    def hide(
        self, x: Float[Tensor, "batch channels height width"], fill: float = 0.0
    ) -> Float[Tensor, "batch channels height width"]:
        """Set hidden cells to `fill`, whatever they held."""
        return torch.where(self.visible(x.shape[2], x.shape[3]), x, fill)

    def on_visible(
        self, x: Float[Tensor, "batch channels height width"], function: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch channels height width"]:
        """Apply a function of all visible positions of the batch, given as images `[positions, C, 1, 1]`; 0 elsewhere.

        (PyTorch's BatchNorm backward is wrong on the CPU for one channels-last image `[1, C, positions, 1]`.)
        """
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        positions = self.positions(x.shape[2], x.shape[3])
        result = function(rows.index_select(0, positions)[:, :, None, None])[:, :, 0, 0]
        canvas = result.new_zeros(rows.shape[0], result.shape[1]).index_copy(0, positions, result)
        return canvas.view(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)

    def on_each_sample(
        self, x: Float[Tensor, "batch channels height width"], function: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch channels height width"]:
        """Apply a function of a sample's visible positions, given as `[samples, C, positions, 1]`; 0 elsewhere."""
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        positions = self.positions(x.shape[2], x.shape[3])
        visible = rows.index_select(0, positions)
        if min(self.counts) == max(self.counts):
            images = visible.view(self.batch, -1, 1, visible.shape[1]).permute(0, 3, 1, 2)
            result = function(images).permute(0, 2, 3, 1).reshape(visible.shape[0], -1)
        else:  # samples that show different numbers of patches go one by one
            cell = visible.shape[0] // sum(self.counts)
            samples = torch.split(visible, [count * cell for count in self.counts])
            results = [function(sample.t()[None, :, :, None])[0, :, :, 0].t() for sample in samples]
            result = torch.cat(results)
        canvas = result.new_zeros(rows.shape[0], result.shape[1]).index_copy(0, positions, result)
        return canvas.view(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)

    def positions(self, height: int, width: int) -> Int[Tensor, " visible_positions"]:
        """Row in the canvas `[B*H*W, C]` of every visible position, sample by sample."""
        if (height, width) not in self._positions:
            self._positions[height, width] = self.visible(height, width).flatten().nonzero().squeeze(1)
        return self._positions[height, width]
