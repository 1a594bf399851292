"""Labels as maps on the grid of features, and back: one channel an object, three a point.

A point is a blob whose cells each remember where, seen from them, the point lies: channels (w, w dx, w dy). All three
travel by the same votes, so that w-weighted means of what the cells remember are means of positions, and a point comes
back where it was, not where its cell is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from videomac.evaluate.images import Ids
from videomac.evaluate.labels import masks_to_grid
from videomac.labeling.labels import Labels, Point

SIGMA = 1.2
"""Of a point's blob, in cells. Of .5, .8 and 1.2 it had the smallest error on made-up and on real joints."""
REACH = 2
"""Cells around the strongest one that are averaged to a point."""
FEWEST_CELLS, FEWEST_CELLS_APART = 4.0, 2.0
"""An object covers at least so many cells, neighbouring points lie so many apart, or the frame is fed larger."""
SHORT_SIDES = (240, 360, 480, 720)


@dataclass(frozen=True)
class Geometry:
    """How pixels of the video and cells of the grid correspond.

    Attributes:
        frame: (height, width) of the video.
        size: of the network's input, a multiple of the stride.
        stride: pixels of the input per cell.
    """

    frame: tuple[int, int]
    size: tuple[int, int]
    stride: int

    @classmethod
    def fitted(cls, frame: tuple[int, int], short_side: int, stride: int) -> Geometry:
        """The nearest size whose sides are whole cells."""
        rows, columns = (max(1, round(side * short_side / min(frame) / stride)) for side in frame)
        return cls(frame, (rows * stride, columns * stride), stride)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.size[0] // self.stride, self.size[1] // self.stride

    def to_cells(self, x: float, y: float) -> tuple[float, float]:
        """A position in pixels of the video as (column, row), the centre of the first cell being (0, 0)."""
        rows, columns = self.grid
        return (x + 0.5) * columns / self.frame[1] - 0.5, (y + 0.5) * rows / self.frame[0] - 0.5

    def to_pixels(self, column: float, row: float) -> tuple[float, float]:
        """The inverse of `to_cells`."""
        rows, columns = self.grid
        return (column + 0.5) * self.frame[1] / columns - 0.5, (row + 0.5) * self.frame[0] / rows - 0.5


@dataclass(frozen=True)
class Channels:
    """Which label has which channels: background and objects first (none if there is no mask), then the points.

    Attributes:
        ids: of the objects.
        points: names.
        geometry: of video and grid.
    """

    ids: Sequence[int]
    points: Sequence[str]
    geometry: Geometry

    @property
    def num_masks(self) -> int:
        """Channels of the masks, background included."""
        return len(self.ids) + 1 if self.ids else 0

    def __len__(self) -> int:
        """Number of channels."""
        return self.num_masks + 3 * len(self.points)

    @property
    def groups(self) -> dict[str, slice]:
        """Channels that are labelled together: all masks ("", the empty name), and each point by its name."""
        masks = {"": slice(0, self.num_masks)} if self.ids else {}
        first = self.num_masks
        return masks | {name: slice(first + 3 * k, first + 3 * k + 3) for k, name in enumerate(self.points)}

    def blank(self) -> Float[Tensor, "channels rows columns"]:
        """Nothing anywhere."""
        return torch.zeros(len(self), *self.geometry.grid)

    def draw(self, labels: Labels, frame: int, maps: Tensor) -> Float[Tensor, "channels rows columns"]:
        """Maps in which what is labelled in a frame replaces what was there."""
        maps = maps.clone()
        if frame in labels.masks:
            maps[: self.num_masks] = self._mask(labels.masks[frame])
        for name, point in labels.points.get(frame, {}).items():
            maps[self.groups[name]] = self._blob(point)
        return maps

    def _mask(self, mask: Ids) -> Tensor:
        ids = np.array([0, *self.ids])
        numbers = torch.from_numpy(np.searchsorted(ids, mask).astype(np.uint8))
        maps = masks_to_grid(numbers, len(ids), self.geometry.size, self.geometry.grid, "area")
        # What is smaller than a cell would lose every cell to the background: it begins with one whole cell.
        peaks = maps[1:].amax((1, 2), keepdim=True)
        maps[1:] = torch.where((peaks > 0) & (peaks < 0.75), maps[1:] / peaks.clamp(min=1e-6), maps[1:])
        maps[0] = (1 - maps[1:].sum(0)).clamp(min=0)
        return maps

    def _blob(self, point: Point) -> Tensor:
        rows, columns = self.geometry.grid
        if not point.visible:
            return torch.zeros(3, rows, columns)
        column, row = self.geometry.to_cells(point.x, point.y)
        dx, dy = column - torch.arange(columns), (row - torch.arange(rows))[:, None]
        squared = dx**2 + dy**2
        weight = torch.exp(-squared / (2 * SIGMA**2)) * (squared <= (3 * SIGMA) ** 2)
        weight = weight / weight.max()
        return torch.stack([weight, weight * dx, weight * dy])

    def mask(self, maps: Float[Tensor, "channels rows columns"]) -> Ids:
        """Most probable object of every pixel of the video; what no label reaches is background."""
        best = torch.zeros(self.geometry.frame)
        decided = torch.zeros(self.geometry.frame, dtype=torch.uint8)
        # One channel after the other: `argmax` over the channels takes four times as long.
        for number, map_ in zip([0, *self.ids], maps[: self.num_masks].cpu(), strict=True):
            score = F.interpolate(map_[None, None], self.geometry.frame, mode="bilinear", align_corners=False)[0, 0]
            if number == 0:
                best = score
            else:
                decided.masked_fill_(score > best, number)
                best = torch.maximum(best, score)
        ids: Ids = decided.numpy()
        return ids

    def cells(self, maps: Float[Tensor, "channels rows columns"]) -> Int[Tensor, "rows columns"]:
        """Most probable channel of every cell: 0 is the background, 1 the first object."""
        return maps[: max(self.num_masks, 1)].argmax(0)

    def point(self, maps: Float[Tensor, "channels rows columns"], name: str) -> tuple[float, float, float]:
        """(x, y) in pixels of the video, and the share of the votes that the strongest cell got.

        Cells around the strongest one are averaged, each at the position that it remembers.
        """
        weight, shift_x, shift_y = maps[self.groups[name]].double().cpu()
        row, column = divmod(int(weight.argmax()), weight.shape[1])
        near = (slice(max(row - REACH, 0), row + REACH + 1), slice(max(column - REACH, 0), column + REACH + 1))
        rows = torch.arange(near[0].start, near[0].start + weight[near].shape[0])[:, None]
        columns = torch.arange(near[1].start, near[1].start + weight[near].shape[1])
        total = weight[near].sum().clamp(min=1e-12)
        x, y = self.geometry.to_pixels(
            float((weight[near] * columns + shift_x[near]).sum() / total),
            float((weight[near] * rows + shift_y[near]).sum() / total),
        )
        height, width = self.geometry.frame
        return min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0), float(weight.max())


def short_side_for(labels: Labels, frame: tuple[int, int], stride: int) -> tuple[int, str]:
    """The smallest short side at which every label has room, and a sentence where none has.

    An upscaled frame holds no more than its pixels: nothing above the video's own size is tried, but 480.

    Returns:
        Pixels, and what is too small even then ("" for nothing).
    """
    candidates = [side for side in SHORT_SIDES if side <= max(min(frame), 480)]
    candidates = [*candidates, *([min(frame)] if min(frame) > candidates[-1] else [])]
    for side in candidates:
        if not (problem := too_small(labels, side / min(frame) / stride, stride)):
            return side, ""
    return candidates[-1], problem


def too_small(labels: Labels, cells_per_pixel: float, stride: int) -> str:
    """A sentence about the smallest label, if it is too small for cells of this size."""
    cure = f"pass a larger --short_side, a --stride below {stride}, or cut the video to its surroundings"
    areas = {
        number: float(np.count_nonzero(mask == number)) for mask in labels.masks.values() for number in np.unique(mask)
    }
    areas.pop(0, None)
    if areas:
        number, pixels = min(areas.items(), key=lambda item: item[1])
        if (cells := pixels * cells_per_pixel**2) < FEWEST_CELLS:
            return f"object {number} covers {cells:.1f} cells only and may get lost: {cure}"
    gaps: list[float] = []
    for points in labels.points.values():
        seen = np.array([(point.x, point.y) for point in points.values() if point.visible])
        if len(seen) > 1:
            distance = np.linalg.norm(seen[:, None] - seen, axis=-1)
            np.fill_diagonal(distance, np.inf)
            gaps += distance.min(1).tolist()
    if gaps and (cells := float(np.median(gaps)) * cells_per_pixel) < FEWEST_CELLS_APART:
        return f"points lie {cells:.1f} cells apart only and may get mixed up: {cure}"
    return ""
