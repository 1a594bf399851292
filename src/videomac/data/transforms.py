"""From raw frames to network input: the same random crop, flip and colour change for both frames of a pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from videomac.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Luma and the two axes of colour of NTSC television.
_RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))

Augmentation = Literal["spatial", "color", "spatial+color", "none"]


def normalize(frames: UInt8[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """Bytes in 0..255 to float32 with, over ImageNet, mean 0 and standard deviation 1 per channel.

    Raises:
        TypeError: the frames are not uint8, so that their range is unknown.
    """
    if frames.dtype != torch.uint8:
        raise TypeError(f"normalize takes uint8 frames in 0..255, not {frames.dtype}")
    mean, std = _statistics(frames.device)
    # Contiguous first: decoded frames are channels-last in memory, and arithmetic per channel is 3 times slower there.
    return frames.contiguous().float().sub_(255 * mean).div_(255 * std)


def denormalize(frames: Float[Tensor, "*batch 3 height width"]) -> Float[Tensor, "*batch 3 height width"]:
    """The inverse of `normalize`, in 0..1; a prediction may lie outside and is not clamped."""
    mean, std = _statistics(frames.device)
    return frames * std.to(frames.dtype) + mean.to(frames.dtype)


def resize(frames: UInt8[Tensor, "batch 3 _ _"], size: tuple[int, int]) -> UInt8[Tensor, "batch 3 height width"]:
    """Bicubic with antialiasing to `size` = (height, width).

    Each of the two passes rounds to bytes, so the overshoot of the bicubic kernel beside a sharp edge is clamped to
    0..255, as in Pillow. Fastest for channels-last memory, which is what decoders give.
    """
    if tuple(frames.shape[-2:]) == size:
        return frames
    return F.interpolate(frames, size=size, mode="bicubic", antialias=True, align_corners=False)


def resize_short_side(frames: UInt8[Tensor, "batch 3 _ _"], short_side: int) -> UInt8[Tensor, "batch 3 _ _"]:
    """Resize so that the shorter of height and width is `short_side` pixels, keeping the aspect ratio."""
    height, width = frames.shape[-2:]
    factor = short_side / min(height, width)
    return resize(frames, (round(height * factor), round(width * factor)))


@dataclass(frozen=True)
class PairTransform:
    """Augment, resize and normalise a pair of frames; every random choice is made once and holds for both frames.

    The paper's default is "spatial" (random resized crop and horizontal flip). "color" jitters brightness, contrast and
    saturation by up to 40 % and hue by up to a tenth of the circle, on the centre of the frame; "spatial+color" does
    both; "none" takes the centre of the frame. All randomness comes from the generator that is passed; the global
    random state is neither read nor changed.

    Attributes:
        image_size: (height, width) of the result, in pixels.
        scale: smallest and largest share of the frame's area that a random crop takes, 0 < smallest <= largest <= 1.
        flip: mirror left and right with probability 1/2 (only where the augmentation is spatial).
        augmentation: "spatial", "color", "spatial+color" or "none".
    """

    image_size: tuple[int, int] = (224, 224)
    scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    augmentation: Augmentation = "spatial"

    def __post_init__(self) -> None:
        """Check the options."""
        if min(self.image_size) < 1:
            raise UserError(f"image_size must be positive (height, width), not {self.image_size}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"scale must be two shares of the frame's area with 0 < first <= second <= 1, not {self.scale}"
            )
        if self.augmentation not in get_args(Augmentation):
            known = ", ".join(get_args(Augmentation))
            raise UserError(f"augmentation must be one of {known}, not {self.augmentation!r}")

    def __call__(
        self, pair: UInt8[Tensor, "frames 3 _ _"], generator: torch.Generator
    ) -> Float[Tensor, "frames 3 height width"]:
        """Transform a pair (or any number of frames of one size); `generator` lives on the CPU."""
        if "spatial" in self.augmentation:
            pair = self._random_resized_crop(pair, generator)
            if self.flip and _uniform(0, 1, generator) < 0.5:
                pair = pair.flip(-1)
        else:
            pair = self._centre(pair)
        if "color" in self.augmentation:
            pair = _jitter_color(pair, generator)
        return normalize(pair)

    def _random_resized_crop(self, pair: Tensor, generator: torch.Generator) -> Tensor:
        top, left, height, width = self._draw_crop(pair.shape[-2], pair.shape[-1], generator)
        return resize(pair[..., top : top + height, left : left + width], self.image_size)

    def _draw_crop(self, height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
        """Draw (top, left, height, width), with the area uniform in `scale`.

        The aspect ratio is log-uniform within 3/4..4/3 of the target's, so that a wide target distorts no more than a
        square one. Ten attempts to fit into the frame, then the largest centred crop whose ratio is in range.
        """
        aspect = self.image_size[1] / self.image_size[0]
        for _ in range(10):
            area = height * width * _uniform(*self.scale, generator)
            ratio = aspect * math.exp(_uniform(math.log(3 / 4), math.log(4 / 3), generator))
            crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < crop_height <= height and 0 < crop_width <= width:
                top = math.floor(_uniform(0, height - crop_height + 1, generator))
                left = math.floor(_uniform(0, width - crop_width + 1, generator))
                return top, left, crop_height, crop_width
        ratio = min(max(width / height, aspect * 3 / 4), aspect * 4 / 3)
        crop_height = max(1, min(height, round(width / ratio)))
        crop_width = max(1, min(width, round(height * ratio)))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def _centre(self, pair: Tensor) -> Tensor:
        """The largest centred part with the target's aspect ratio, resized."""
        height, width = pair.shape[-2:]
        aspect = self.image_size[1] / self.image_size[0]
        crop_height, crop_width = min(height, round(width / aspect)), min(width, round(height * aspect))
        top, left = (height - crop_height) // 2, (width - crop_width) // 2
        return resize(pair[..., top : top + crop_height, left : left + crop_width], self.image_size)


def _jitter_color(pair: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each as a map of colours, in one pass.

    Saturation scales and hue rotates the colour around its luma; brightness scales; contrast scales around the frame's
    mean luma. These commute, so that no order needs to be drawn, and are one matrix and one offset: 20 times faster
    than one after the other by way of HSV.
    """
    brightness, contrast, saturation = (_uniform(0.6, 1.4, generator) for _ in range(3))
    return _change_color(pair, brightness, contrast, saturation, _uniform(-0.1, 0.1, generator))


def _change_color(frames: Tensor, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """Three factors (1 changes nothing) and the hue's turn as a share of the circle, red to green counted positive."""
    turn = 2 * math.pi * hue
    cos, sin = saturation * math.cos(turn), saturation * math.sin(turn)
    to_yiq = torch.tensor(_RGB_TO_YIQ, dtype=torch.float64)
    change = torch.tensor([[1, 0, 0], [0, cos, sin], [0, -sin, cos]], dtype=torch.float64)
    matrix = (brightness * contrast * to_yiq.inverse() @ change @ to_yiq).float()
    pixels = frames.contiguous().flatten(-2).float()
    mean_luma = pixels.mean(dim=-1) @ to_yiq[0].float()
    changed = matrix @ pixels + (brightness * (1 - contrast) * mean_luma).view(-1, 1, 1)
    return changed.clamp_(0, 255).round_().to(torch.uint8).view(frames.shape)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    # In float64: float32 could round up to `high` itself, which a random offset must never reach.
    return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std
