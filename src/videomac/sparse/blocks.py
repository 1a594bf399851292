"""Visible blocks are the batch.

The mask hides whole patches and leaves the same number K of them visible in every sample, so the visible part of a
batch is an ordinary tensor of blocks `[B*K, C, P, P]`: P = patch size at the input, patch size / stride further down.
Most layers of a ConvNet never look across a block's border and run on it unmodified; `Blocks` gives the others what
they need to know of their surroundings: a halo borrowed from visible neighbours (`windows`), tables of who reads whom
(`column_tables`), the whole frame (`to_canvas`), or all blocks of a sample as one tall image (`stack`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from videomac.sparse.functional import Windows, as_frames, as_rows


class Halo(NamedTuple):
    """How many positions a layer reaches beyond a block's four borders."""

    top: int
    bottom: int
    left: int
    right: int

    def __bool__(self) -> bool:
        return any(side > 0 for side in self)

    def turned(self) -> Halo:
        """That of the kernel turned round by half a turn."""
        return Halo(self.bottom, self.top, self.right, self.left)


class Kernel(NamedTuple):
    """Where a convolution's taps lie: kernel size, stride and dilation (down, along), and its halo."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    halo: Halo


class Blocks:
    """The visible patches of one batch and where they lie.

    Blocks are ordered sample by sample, in a sample row by row. Inside the engine blocks are kept channels-last in
    memory, so that "all positions of all blocks" is the matrix `[B*K*P*P, C]` without a copy and every exchange
    between blocks is a selection of its rows. The index tables depend on the mask alone; they are made once per mask
    and size P, from `argsort` on the mask's own device, without reading anything back from it.

    Args:
        mask: True = hidden; the same number K >= 1 of visible patches in every sample.
        device: where the frames are; the tables are moved there.

    Raises:
        ValueError: a sample shows no patch, or not as many as another.
    """

    def __init__(self, mask: Bool[Tensor, "batch rows columns"], device: torch.device | None = None) -> None:
        self.batch, self.rows, self.columns = mask.shape
        counts = (~mask).flatten(1).sum(dim=1).tolist()
        if min(counts) < 1 or min(counts) != max(counts):
            raise ValueError(
                f"mode='blocks' needs the same number (at least 1) of visible patches in every sample, got {counts}; "
                "use mode='masked' for masks of different ratios"
            )
        self.visible_per_sample = int(counts[0])
        # A stable sort puts the visible patches (False) first, in reading order.
        order = mask.flatten(1).to(torch.uint8).argsort(dim=1, stable=True)[:, : self.visible_per_sample]
        order = order.sort(dim=1).values.to(device if device is not None else mask.device)
        self.row = (order // self.columns).flatten()
        self.column = (order % self.columns).flatten()
        self.sample = torch.arange(self.batch, device=order.device).repeat_interleave(self.visible_per_sample)
        self._positions: dict[int, Tensor] = {}
        self._tables: dict[tuple[int, Halo], Tensor] = {}
        self._inverses: dict[tuple[int, Halo], Tensor] = {}
        self._columns: dict[tuple[int, Kernel], tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.batch * self.visible_per_sample

    # Into blocks and out again -------------------------------------------------------------------------------------

    def pack(self, frames: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "blocks channels P P"]:
        """Cut the visible patches out of the frames."""
        channels, patch = frames.shape[1], frames.shape[2] // self.rows
        tiles = frames.reshape(self.batch, channels, self.rows, patch, self.columns, patch).permute(0, 2, 4, 3, 5, 1)
        return tiles[self.sample, self.row, self.column].permute(0, 3, 1, 2)

    def unpack(self, blocks: Float[Tensor, "blocks channels P P"]) -> Float[Tensor, "batch channels height width"]:
        """Lay the blocks back into the frame; exactly 0 where hidden."""
        return self.to_canvas(blocks)

    def to_canvas(self, blocks: Float[Tensor, "blocks channels P P"]) -> Float[Tensor, "batch channels height width"]:
        """The whole frame, 0 where hidden."""
        size = blocks.shape[-1]
        return as_frames(as_rows(blocks), self.positions(size), self.frames(size))

    def from_canvas(self, canvas: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "blocks channels P P"]:
        """The visible blocks of a whole frame."""
        size = canvas.shape[2] // self.rows
        rows = as_rows(canvas).index_select(0, self.positions(size))
        return rows.view(len(self), size, size, -1).permute(0, 3, 1, 2)

    # What layers ask for -------------------------------------------------------------------------------------------

    def windows(
        self, blocks: Float[Tensor, "blocks channels P P"], halo: Halo, fill: float = 0.0
    ) -> Float[Tensor, "blocks channels window_height window_width"]:
        """Every block with a halo borrowed from visible neighbours; `fill` where hidden or outside the frame."""
        size = blocks.shape[-1]
        if not halo:
            return blocks
        tables = self.window_table(size, halo), self.window_inverse(size, halo)
        windows: Tensor = Windows.apply(as_rows(blocks), fill, *tables)
        return windows.permute(0, 3, 1, 2)

    def window_share(self, size: int, halo: Halo) -> float:
        """Positions in all windows for one position of the whole canvas: what a halo costs, compared to the frame."""
        window = (size + halo.top + halo.bottom) * (size + halo.left + halo.right)
        return len(self) * window / (self.batch * self.rows * self.columns * size * size)

    def stack(self, blocks: Tensor, channels_last: bool = False) -> Tensor:
        """The K blocks of each sample as one tall image, `[B, C, K*P, P]` (or channels-last): no copy is made.

        Whatever treats all positions of a sample alike (a mean, a norm, a drop) may then run as it was written.
        """
        if not channels_last:
            return self.stack(blocks.permute(0, 2, 3, 1), channels_last=True).permute(0, 3, 1, 2)
        size, channels = blocks.shape[2], blocks.shape[3]
        return blocks.reshape(self.batch, self.visible_per_sample * blocks.shape[1], size, channels)

    def unstack(self, stacked: Tensor, channels_last: bool = False) -> Tensor:
        """Undo `stack`."""
        if not channels_last:
            return self.unstack(stacked.permute(0, 2, 3, 1), channels_last=True).permute(0, 3, 1, 2)
        size, channels = stacked.shape[2], stacked.shape[3]
        return stacked.reshape(len(self), stacked.shape[1] // self.visible_per_sample, size, channels)

    def size_of(self, rows: Float[Tensor, "positions channels"]) -> int:
        """P of the blocks whose positions these are."""
        return math.isqrt(rows.shape[0] // len(self))

    def as_images(self, rows: Float[Tensor, "positions channels"]) -> Float[Tensor, "blocks channels P P"]:
        """Undo `as_rows`: a view, channels-last in memory."""
        size = self.size_of(rows)
        return rows.view(len(self), size, size, -1).permute(0, 3, 1, 2)

    # Index tables --------------------------------------------------------------------------------------------------

    def frames(self, size: int) -> tuple[int, int, int]:
        """Batch, height and width of the canvas."""
        return self.batch, self.rows * size, self.columns * size

    def positions(self, size: int) -> Int[Tensor, " visible_positions"]:
        """Row in the canvas `[B*H*W, C]` of every position of every block."""
        if size not in self._positions:
            self._positions[size] = self._canvas_positions(size, Halo(0, 0, 0, 0)).flatten()
        return self._positions[size]

    def window_table(self, size: int, halo: Halo) -> Int[Tensor, "blocks window_height window_width"]:
        """Row in `[B*K*P*P + 1, C]` of every position of every window; the last row where nothing is visible."""
        if (size, halo) not in self._tables:
            hidden = len(self) * size * size
            height = self.rows * size + halo.top + halo.bottom
            width = self.columns * size + halo.left + halo.right
            owner = torch.full((self.batch * height * width,), hidden, device=self.row.device)
            inside = self._canvas_positions(size, halo)[
                :, halo.top : halo.top + size, halo.left : halo.left + size
            ].flatten()
            owner[inside] = torch.arange(hidden, device=self.row.device)
            self._tables[size, halo] = owner[self._canvas_positions(size, halo)]
        return self._tables[size, halo]

    def window_inverse(self, size: int, halo: Halo) -> Int[Tensor, "positions holders"]:
        """Every position of a window, in `[window_positions + 1, C]`, that is this row; the last row for none.

        A position lies in its own block's window and in those of neighbours so many blocks up, down, left and right
        as the halo reaches: each has its own place in the row.
        """
        if (size, halo) in self._inverses:
            return self._inverses[size, halo]
        table = self.window_table(size, halo)
        down, along = (torch.arange(length, device=table.device) for length in table.shape[1:])
        above, before = -(-halo.top // size), -(-halo.left // size)
        block_y = torch.div(down - halo.top, size, rounding_mode="floor") + above
        block_x = torch.div(along - halo.left, size, rounding_mode="floor") + before
        across = before + 1 + -(-halo.right // size)
        holder = (block_y[:, None] * across + block_x).expand(table.shape)
        holders = (above + 1 + -(-halo.bottom // size)) * across
        inverse = torch.full((len(self) * size * size + 1, holders), table.numel(), device=table.device)
        inverse[table, holder] = torch.arange(table.numel(), device=table.device).view(table.shape)
        self._inverses[size, halo] = inverse[:-1].contiguous()
        return self._inverses[size, halo]

    def column_tables(
        self, size: int, kernel: Kernel
    ) -> tuple[Int[Tensor, "out_positions taps"], Int[Tensor, "positions taps"]]:
        """Which input each tap of each output position reads, and the other way round.

        Returns:
            The row in `[B*K*P*P + 1, C]` that each tap reads (the last row where nothing is visible); and for each
            input position and tap the row in `[(out_positions + 1) * taps, C]` of the output that reads it by this
            tap (the last row where none does).
        """
        if (size, kernel) not in self._columns:
            (high, wide), (down, along), (dilate_y, dilate_x), halo = kernel
            windows = self.window_table(size, halo)
            rows, columns = size // down, size // along
            taps = [
                windows[:, y * dilate_y :: down, x * dilate_x :: along][:, :rows, :columns].flatten()
                for y in range(high)
                for x in range(wide)
            ]
            table = torch.stack(taps, dim=1)
            nowhere, by = len(self) * size * size, torch.arange(len(taps), device=table.device)
            inverse = torch.full((nowhere + 1, len(taps)), (len(table) + 1) * len(taps) - 1, device=table.device)
            inverse[table, by] = torch.arange(table.numel(), device=table.device).view_as(table)
            self._columns[size, kernel] = table, inverse[:nowhere].contiguous()
        return self._columns[size, kernel]

    def _canvas_positions(self, size: int, halo: Halo) -> Int[Tensor, "blocks window_height window_width"]:
        """Positions of the blocks' windows in a canvas that has the halo as a border around each frame."""
        height = self.rows * size + halo.top + halo.bottom
        width = self.columns * size + halo.left + halo.right
        down = torch.arange(size + halo.top + halo.bottom, device=self.row.device)
        along = torch.arange(size + halo.left + halo.right, device=self.row.device)
        y = self.row[:, None] * size + down
        x = self.column[:, None] * size + along
        return (self.sample[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]
