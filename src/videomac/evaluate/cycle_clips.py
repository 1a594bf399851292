"""Clips with known truth from footage without labels: pieces of one video glide over another.

A piece has an irregular outline and shows, while it glides, turns and grows or shrinks, what happens at one place of
the other video. So it moves, changes and hides what is behind it, and where it is in every frame is known to the pixel.
In every frame the light is a little different, so that colours alone do not find it again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

PIECES = 2
RADIUS = (0.14, 0.22)
"""Of a piece, in short sides of the frame."""
SPEED = (0.02, 0.047)
"""Short sides of the frame that a piece moves from one frame to the next."""
EXPOSURE, CONTRAST, TINT = 0.15, 0.125, 0.06
"""How much brighter or darker, richer or flatter, and more or less of a colour a frame may be."""


@dataclass(frozen=True)
class Planted:
    """A clip in which pieces of another one were planted.

    Attributes:
        frames: of the clip.
        pieces: number of the piece at each pixel, 0 for the clip itself.
    """

    frames: UInt8[Tensor, "frames 3 height width"]
    pieces: UInt8[Tensor, "frames height width"]


def plant(
    frames: UInt8[Tensor, "frames 3 height width"], other: UInt8[Tensor, "frames 3 _ _"], seed: int, light: bool = True
) -> Planted:
    """Plant pieces of another clip, side by side at first; later ones pass over earlier ones.

    Args:
        frames: of the clip.
        other: as many frames of another clip, of any size.
        seed: of outlines, motions and light.
        light: change the light from frame to frame.

    Raises:
        ValueError: the clips differ in length.
    """
    if len(frames) != len(other):
        raise ValueError(f"the clips must have equally many frames, not {len(frames)} and {len(other)}")
    rng = np.random.default_rng(seed)
    height, width = frames.shape[-2:]
    made = frames.float()
    numbers = torch.zeros(len(frames), height, width, dtype=torch.uint8)
    for number in range(1, PIECES + 1):
        outline, motion = _outline(rng), _motion(rng, len(frames), (height, width), (number - 0.5) / PIECES)
        texture = _cut_out(other, rng)
        for time, place in enumerate(motion):
            across = _across(place, (height, width))
            inside = _inside(across, outline)
            picture = F.grid_sample(
                texture[time : time + 1].float(), across[None], padding_mode="border", align_corners=False
            )[0]
            made[time] = torch.where(inside, picture, made[time])
            numbers[time][inside] = number
    if light:
        made = torch.stack([_relit(frame, rng) for frame in made])
    return Planted(made.clamp(0, 255).round().to(torch.uint8), numbers)


@dataclass(frozen=True)
class _Place:
    """Where a piece is in a frame: middle and radius in pixels, turned by an angle."""

    middle: tuple[float, float]
    radius: float
    angle: float


def _motion(rng: np.random.Generator, count: int, size: tuple[int, int], lane: float) -> list[_Place]:
    """Glide, turn, grow or shrink, and turn back near the frame's border."""
    short = min(size)
    low, high = np.array([0.15, 0.1]) * size, np.array([0.85, 0.9]) * size
    middle = np.array([rng.uniform(0.3, 0.7), np.clip(lane + rng.uniform(-0.08, 0.08), 0.1, 0.9)]) * size
    radius, growth = rng.uniform(*RADIUS) * short, 1 + 0.02 * rng.normal()
    heading, speed = rng.uniform(0, 2 * math.pi), rng.uniform(*SPEED) * short
    velocity = speed * np.array([math.sin(heading), math.cos(heading)])
    angle, spin = 0.0, 0.06 * rng.normal()
    places = []
    for _ in range(count):
        places.append(_Place((float(middle[0]), float(middle[1])), radius, angle))
        middle, radius, angle = middle + velocity, radius * growth, angle + spin
        outward = np.where(middle < low, -1, np.where(middle > high, 1, 0))
        velocity = np.where(outward == 0, velocity, -outward * abs(velocity)) + short / 300 * rng.normal(size=2)
    return places


def _outline(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Radius at even angles, the largest being 1: a circle with a few random waves."""
    angles = np.linspace(0, 2 * math.pi, 256, endpoint=False)
    waves = [0.35 / n * rng.normal() * np.cos(n * angles + rng.uniform(0, 2 * math.pi)) for n in range(2, 6)]
    radius = np.maximum(1 + sum(waves), 0.3)
    return np.asarray(radius / radius.max())


def _cut_out(other: Tensor, rng: np.random.Generator) -> Tensor:
    """A square of a clip, the same in all frames."""
    height, width = other.shape[-2:]
    side = max(1, int(rng.uniform(0.4, 0.6) * min(height, width)))
    top, left = (int(rng.integers(0, room - side + 1)) for room in (height, width))
    return other[..., top : top + side, left : left + side]


def _across(place: _Place, size: tuple[int, int]) -> Float[Tensor, "height width 2"]:
    """(x, y) of each pixel in the piece's own coordinates, which reach from -1 to 1."""
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    y, x = (y - place.middle[0]) / place.radius, (x - place.middle[1]) / place.radius
    cosine, sine = math.cos(place.angle), math.sin(place.angle)
    return torch.stack([cosine * x + sine * y, cosine * y - sine * x], dim=-1)


def _inside(across: Tensor, outline: npt.NDArray[np.float64]) -> Tensor:
    """Which pixels lie within the outline."""
    x, y = across.unbind(-1)
    angle = torch.atan2(y, x) % (2 * math.pi)
    limit = torch.from_numpy(outline).float()[(angle / (2 * math.pi) * len(outline)).long() % len(outline)]
    return torch.hypot(x, y) < limit


def _relit(frame: Tensor, rng: np.random.Generator) -> Tensor:
    """A frame under other light: exposure, then contrast, then the balance of the colours."""
    frame = frame * rng.uniform(1 - EXPOSURE, 1 + EXPOSURE)
    frame = torch.lerp(frame.mean(), frame, float(rng.uniform(1 - CONTRAST, 1 + CONTRAST)))
    return frame * torch.from_numpy(rng.uniform(1 - TINT, 1 + TINT, (3, 1, 1))).float()
