"""Visible blocks are the batch.

The mask hides whole patches and leaves the same number K of them visible in every sample, so the visible part of a
batch is an ordinary tensor of blocks `[B*K, C, P, P]`: P = patch size at the input, patch size / stride further down.
Most layers of a ConvNet never look across a block's border and run on it unmodified; `Blocks` gives the others what
they need to know of their surroundings: a halo borrowed from visible neighbours (`windows`), tables of who reads whom
(`column_table`), the whole frame (`to_canvas`), or all blocks of a sample as one tall image (`stack`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

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


TableName: TypeAlias = "tuple[str, int, Halo | Kernel | None]"
"""A method of `Blocks` and its arguments: P of the blocks, and what a layer reaches."""


class Blocks:
    """The visible patches of one batch and where they lie.

    Blocks are ordered sample by sample, in a sample row by row. Inside the engine blocks are kept channels-last in
    memory, so that "all positions of all blocks" is the matrix `[B*K*P*P, C]` without a copy and every exchange
    between blocks is a selection of its rows. The index tables (int32) depend on the mask alone; each is made when a
    layer first asks for it, or beforehand by `make_tables`, and serves every encoder that is given this layout. Their
    shapes depend on K and the grid alone. Only the mask itself is read on the host: one that comes on the CPU costs no
    synchronisation with a GPU.

    Args:
        mask: True = hidden; the same number K >= 1 of visible patches in every sample.
        device: where the frames are; the tables are made there.

    Attributes:
        mask: the mask, on that device.
        tables: the index tables so far, by the method that makes them and its arguments.

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
        self.mask = mask.to(device if device is not None else mask.device)
        order = order.to(torch.int32).to(self.mask.device)
        self.row = (order // self.columns).flatten()
        self.column = (order % self.columns).flatten()
        self.sample = self._count(self.batch).repeat_interleave(self.visible_per_sample)
        self.tables: dict[TableName, Tensor] = {}

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
        table = self.window_table(size, halo)
        inverse, nowhere = self.window_inverse(size, halo), self.nowhere(table, halo)
        windows: Tensor = Windows.apply(as_rows(blocks), fill, table, inverse, nowhere)
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

    def as_images(self, rows: Float[Tensor, "positions channels"], size: int) -> Float[Tensor, "blocks channels P P"]:
        """Undo `as_rows`, for blocks of P = `size`: a view, channels-last in memory."""
        return rows.view(len(self), size, size, -1).permute(0, 3, 1, 2)

    # Index tables --------------------------------------------------------------------------------------------------

    def frames(self, size: int) -> tuple[int, int, int]:
        """Batch, height and width of the canvas."""
        return self.batch, self.rows * size, self.columns * size

    def make_tables(self, names: Iterable[TableName]) -> None:
        """Make the tables that layers will ask for, all at once: a compiled network then finds them as its inputs."""
        for method, size, shape in names:
            getattr(self, method)(*((size,) if shape is None else (size, shape)))

    def positions(self, size: int) -> Int[Tensor, " visible_positions"]:
        """Row in the canvas `[B*H*W, C]` of every position of every block."""
        return self._once(("positions", size, None), lambda: self._canvas_positions(size, Halo(0, 0, 0, 0)).flatten())

    def window_table(self, size: int, halo: Halo) -> Int[Tensor, "blocks window_height window_width"]:
        """Row in `[B*K*P*P + 1, C]` of every position of every window; the last row where nothing is visible."""
        return self._once(("window_table", size, halo), lambda: self._window_table(size, halo))

    def window_inverse(self, size: int, halo: Halo) -> Int[Tensor, "positions holders"]:
        """Every position of a window, in `[window_positions, C]`, that is this row; `nowhere` for none.

        A position lies in its own block's window and in those of neighbours so many blocks up, down, left and right
        as the halo reaches: each has its own place in the row.
        """
        return self._once(("window_inverse", size, halo), lambda: self._window_inverse(size, halo))

    def column_table(self, size: int, kernel: Kernel) -> Int[Tensor, "out_positions taps"]:
        """Row in `[B*K*P*P + 1, C]` that each tap of each output position reads; the last where nothing is visible."""
        return self._once(("column_table", size, kernel), lambda: self._column_table(size, kernel))

    def column_inverse(self, size: int, kernel: Kernel) -> Int[Tensor, "positions taps"]:
        """Row in `[out_positions * taps, C]` of the output that reads an input by each tap; `nowhere` for none."""
        return self._once(("column_inverse", size, kernel), lambda: self._column_inverse(size, kernel))

    @staticmethod
    def nowhere(table: Int[Tensor, "*shape"], halo: Halo) -> int:
        """A place in a table of windows or columns (its index when flat) where nothing is visible, in any mask.

        Above the first block of all, and to its left, nothing is visible; nor is below or right of the last one.
        """
        return 0 if halo.top > 0 or halo.left > 0 else table.numel() - 1

    def _once(self, name: TableName, make: Callable[[], Tensor]) -> Tensor:
        if name not in self.tables:
            self.tables[name] = make()
        return self.tables[name]

    def _window_table(self, size: int, halo: Halo) -> Tensor:
        hidden = len(self) * size * size
        height = self.rows * size + halo.top + halo.bottom
        width = self.columns * size + halo.left + halo.right
        windows = self._canvas_positions(size, halo)
        owner = torch.full((self.batch * height * width,), hidden, dtype=torch.int32, device=self.row.device)
        owner[windows[:, halo.top : halo.top + size, halo.left : halo.left + size].flatten()] = self._count(hidden)
        return owner[windows]

    def _window_inverse(self, size: int, halo: Halo) -> Tensor:
        table = self.window_table(size, halo)
        down, along = (self._count(length) for length in table.shape[1:])
        above, before = -(-halo.top // size), -(-halo.left // size)
        block_y = torch.div(down - halo.top, size, rounding_mode="floor") + above
        block_x = torch.div(along - halo.left, size, rounding_mode="floor") + before
        across = before + 1 + -(-halo.right // size)
        holder = (block_y[:, None] * across + block_x).expand(table.shape)
        holders = (above + 1 + -(-halo.bottom // size)) * across
        return self._invert(table, holder, holders, len(self) * size * size, self.nowhere(table, halo))

    def _column_table(self, size: int, kernel: Kernel) -> Tensor:
        (high, wide), (down, along), (dilate_y, dilate_x), halo = kernel
        windows, rows, columns = self.window_table(size, halo), size // down, size // along
        taps = [
            windows[:, y * dilate_y :: down, x * dilate_x :: along][:, :rows, :columns].flatten()
            for y in range(high)
            for x in range(wide)
        ]
        return torch.stack(taps, dim=1)

    def _column_inverse(self, size: int, kernel: Kernel) -> Tensor:
        table = self.column_table(size, kernel)
        tap, nowhere = self._count(table.shape[1]).expand(table.shape), self.nowhere(table, kernel.halo)
        return self._invert(table, tap, table.shape[1], len(self) * size * size, nowhere)

    def _invert(self, table: Tensor, place: Tensor, places: int, rows: int, nowhere: int) -> Tensor:
        """Where in a table each row stands: `[rows, places]`, so that no two entries of the table share a place."""
        inverse = torch.full((rows + 1, places), nowhere, dtype=torch.int32, device=table.device)
        inverse[table, place] = self._count(table.numel()).view(table.shape)
        return inverse[:-1].contiguous()  # the last row gathered what nobody reads

    def _canvas_positions(self, size: int, halo: Halo) -> Int[Tensor, "blocks window_height window_width"]:
        """Positions of the blocks' windows in a canvas that has the halo as a border around each frame."""
        height = self.rows * size + halo.top + halo.bottom
        width = self.columns * size + halo.left + halo.right
        y = self.row[:, None] * size + self._count(size + halo.top + halo.bottom)
        x = self.column[:, None] * size + self._count(size + halo.left + halo.right)
        return (self.sample[:, None, None] * height + y[:, :, None]) * width + x[:, None, :]

    def _count(self, length: int) -> Int[Tensor, " length"]:
        return torch.arange(length, dtype=torch.int32, device=self.mask.device)
