"""Labels on their way to the grid and back: masks and joints."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

NUM_JOINTS = 15


def resize_frames(
    frames: UInt8[Tensor, "batch 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 new_height new_width"]:
    """Frames in [0, 1] at a size: bilinear between pixel centres, without antialiasing (OpenCV's INTER_LINEAR)."""
    scaled = frames.float() / 255
    if frames.shape[-2:] == size:
        return scaled
    return F.interpolate(scaled, size, mode="bilinear", align_corners=False)


def masks_to_grid(
    ids: UInt8[Tensor, "height width"],
    labels: int,
    size: tuple[int, int],
    grid: tuple[int, int],
    method: Literal["nearest", "bilinear", "area"],
) -> Float[Tensor, "labels rows columns"]:
    """Bring an index mask to the grid, one channel a label.

    Args:
        ids: the mask, 0 = background.
        labels: number of channels; ids from it on are ignored.
        size: of the network's input.
        grid: of the features.
        method: "nearest" takes the id at each cell's centre; "bilinear" brings the ids to the network's size (nearest),
            then each channel to the grid (bilinear, no antialiasing); "area" gives each label its share of the cell.

    Returns:
        Values in [0, 1].
    """
    if method == "nearest":
        return one_hot(resize_ids(ids, grid), labels)
    if method == "bilinear":
        channels = one_hot(resize_ids(ids, size), labels)
        return F.interpolate(channels[None], grid, mode="bilinear", align_corners=False)[0]
    return F.interpolate(one_hot(ids, labels)[None], grid, mode="area")[0]


def grid_to_ids(
    maps: Float[Tensor, "labels rows columns"],
    size: tuple[int, int],
    original: tuple[int, int],
    *,
    class_normalization: bool,
) -> Int[Tensor, "height width"]:
    """Decide each pixel's label: upsample (bilinear), most probable channel, nearest to the frame's own size.

    Args:
        maps: label maps on the grid.
        size: of the network's input, to which they are upsampled.
        original: of the frame.
        class_normalization: stretch every channel that is not all 0 to [0, 1] first.

    Returns:
        Channel numbers.
    """
    upsampled = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    if class_normalization:
        low, high = upsampled.amin((1, 2), keepdim=True), upsampled.amax((1, 2), keepdim=True)
        # A constant channel, which differs by rounding only, becomes 0: neither 0 / 0 nor noise stretched to 1.
        constant = high - low <= 1e-6 * high
        upsampled = torch.where(constant, 0, (upsampled - low) / (high - low + 1e-12))
    return resize_ids(upsampled.argmax(0), original)


def one_hot(ids: Tensor, labels: int) -> Tensor:
    """Index mask `[H, W]` -> float `[labels, H, W]`."""
    return (ids == torch.arange(labels, device=ids.device, dtype=ids.dtype).view(-1, 1, 1)).float()


def resize_ids(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resizing of an index mask, as PIL does it: the id at each new pixel's centre."""
    if tuple(ids.shape) == size:
        return ids
    rows, columns = (_nearest(old, new).to(ids.device) for old, new in zip(ids.shape, size, strict=True))
    return ids[rows[:, None], columns]


def _nearest(old: int, new: int) -> Tensor:
    """Index of the old pixel for each new one; centres are added up as PIL does, which decides the exact halves."""
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return torch.from_numpy(np.cumsum(steps).astype(np.int64)).clamp(max=old - 1)


def joints_to_grid(
    joints: npt.NDArray[np.float64],
    frame: tuple[int, int],
    grid: tuple[int, int],
    drawing: Literal["grid", "grid-truncated", "image"],
) -> Float[Tensor, "labels rows columns"]:
    """Draw each joint as a Gaussian blob in its own channel.

    Args:
        joints: `[15, 2]` pixels (x, y) of the frame, 0-based.
        frame: size of the frame in pixels.
        grid: of the features.
        drawing: see `EvalProtocol.joint_drawing`.

    Returns:
        One channel a joint with peak 1, and before them a background channel that is 1 where all others are 0 (none for
        "image").
    """
    if drawing == "image":
        blobs = np.stack([_blob(x, y, frame, 4.0, truncate=False) for x, y in joints])
        return F.interpolate(torch.from_numpy(blobs).float()[None], grid, mode="bilinear", align_corners=False)[0]
    scale = np.array([grid[1] / frame[1], grid[0] / frame[0]])
    blobs = np.stack([_blob(x, y, grid, 0.5, truncate=drawing == "grid-truncated") for x, y in joints * scale])
    background = (blobs == 0).all(0)
    return torch.from_numpy(np.concatenate([background[None], blobs])).float()


def _blob(x: float, y: float, size: tuple[int, int], sigma: float, *, truncate: bool) -> npt.NDArray[np.float64]:
    """A Gaussian with its peak at the cell nearest to (x, y), cut off about three sigmas around.

    At sigma 0.5 that is 4 x 4 cells, -2 to +1 around the peak. `truncate` rounds the corner of the patch towards zero,
    as the original code does, which moves the blob of a joint within 1.5 cells of the left or top border by one cell.
    """
    span = int(6 * sigma + 1)
    before = span // 2
    profile = np.exp(-((np.arange(span) - before) ** 2) / (2 * sigma**2))
    canvas = np.zeros(size)
    corner = int if truncate else math.floor
    starts = [corner(c - before + 0.5) for c in (y, x)]
    ends = [corner(c - before + 0.5 + span) for c in (y, x)]
    spans = [(max(start, 0), min(end, side)) for start, end, side in zip(starts, ends, size, strict=True)]
    if all(low < high for low, high in spans):
        parts = [profile[low - start : high - start] for (low, high), start in zip(spans, starts, strict=True)]
        canvas[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]] = np.outer(*parts)
    return canvas


def grid_to_joints(
    maps: Float[Tensor, "labels rows columns"],
    frame: tuple[int, int],
    drawing: Literal["grid", "grid-truncated", "image"],
    topk: int,
) -> npt.NDArray[np.float64]:
    """Read each joint's position: the mean of its `topk` largest cells, weighted by their values.

    Args:
        maps: propagated maps on the grid.
        frame: size of the frame in pixels.
        drawing: as the joints were drawn; "image" reads from the map upsampled to the frame.
        topk: cells to average.

    Returns:
        `[15, 2]` pixels (x, y), 0-based; -1 where the map is 0 or, for "image", where x is 0.
    """
    if drawing == "image":
        maps = F.interpolate(maps[None], frame, mode="bilinear", align_corners=False)[0]
    else:
        maps = maps[1:]
    rows, columns = maps.shape[1:]
    values, index = (t.cpu().double() for t in maps.flatten(1).topk(min(topk, rows * columns), dim=1))
    mass = values.sum(1)
    weights = values / mass.clamp(min=1e-300)[:, None]
    x = (weights * (index % columns)).sum(1) / columns * frame[1]
    y = (weights * torch.div(index, columns, rounding_mode="floor")).sum(1) / rows * frame[0]
    positions = torch.stack([x, y], dim=1)
    hidden = (mass <= 0) | ((x <= 0) & (drawing == "image"))
    positions[hidden] = -1
    return positions.numpy()
