"""Made-up videos whose motion is known exactly, for tests, examples and a first look."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor


def moving_shapes(
    num_frames: int, size: tuple[int, int] = (240, 320), num_objects: int = 3, seed: int = 0
) -> tuple[UInt8[Tensor, "frames 3 height width"], UInt8[Tensor, "frames height width"]]:
    """Textured shapes that glide over a textured background and turn back at the border.

    Every object moves by whole pixels (1 to 4 per frame and axis) and takes its texture along unchanged, so that its
    pixels in one frame are exactly its pixels in the next, apart from what others cover. Later objects lie over earlier
    ones.

    Args:
        num_frames: length of the video.
        size: (height, width) in pixels, at least 32 each.
        num_objects: how many shapes (discs, boxes and triangles in turn), at most 255.
        seed: of everything that is random.

    Returns:
        The frames and, per pixel, the number of the object seen there: 0 is background, 1 the first object.
    """
    height, width = size
    if min(size) < 32 or not 0 <= num_objects <= 255:
        raise ValueError(f"size must be at least 32x32 and num_objects 0 to 255, not {size} and {num_objects}")
    rng = np.random.default_rng(seed)
    background = _texture(height, width, rng)
    frames = background.repeat(num_frames, 1, 1, 1)
    object_ids = torch.zeros(num_frames, height, width, dtype=torch.uint8)
    for number in range(1, num_objects + 1):
        side = int(rng.integers(min(size) // 4, min(size) // 2))
        shape, texture = _shape(number % 3, side), _texture(side, side, rng)
        tops, lefts = (_bounce(num_frames, extent - side, rng) for extent in size)
        for frame, ids, top, left in zip(frames, object_ids, tops, lefts, strict=True):
            rows, columns = slice(top, top + side), slice(left, left + side)
            frame[:, rows, columns][:, shape] = texture[:, shape]
            ids[rows, columns][shape] = number
    return frames, object_ids


def _texture(height: int, width: int, rng: np.random.Generator) -> UInt8[Tensor, "3 height width"]:
    """Noise of a coarse and a fine scale around a random colour."""
    total = torch.from_numpy(rng.uniform(60, 196, (3, 1, 1)))
    for cell, amplitude in ((16, 35), (4, 25)):
        grid = torch.from_numpy(rng.uniform(-amplitude, amplitude, (1, 3, height // cell + 2, width // cell + 2)))
        total = total + F.interpolate(grid, scale_factor=cell, mode="bilinear")[0, :, :height, :width]
    return total.round().to(torch.uint8)


def _shape(kind: int, side: int) -> Bool[Tensor, "side side"]:
    """A triangle (0), disc (1) or box (2) that fills a square."""
    down, across = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    if kind == 0:
        return across.abs() <= (down + 1) / 2
    return down**2 + across**2 <= 1 if kind == 1 else torch.ones(side, side, dtype=torch.bool)


def _bounce(num_frames: int, room: int, rng: np.random.Generator) -> list[int]:
    """Positions in 0..room that change by the same 1 to 4 every frame and turn back before leaving the range."""
    speed = int(rng.integers(1, 5)) * int(rng.choice([-1, 1]))
    positions = [int(rng.integers(0, room + 1))]
    while len(positions) < num_frames:
        if not 0 <= positions[-1] + speed <= room:
            speed = -speed
        positions.append(positions[-1] + speed)
    return positions[:num_frames]
