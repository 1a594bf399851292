"""Networks whose right answer is known, and options that make an evaluation quick."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from videomac.evaluate import synthetic

QUICK: dict[str, Any] = {"videos": False, "size": "native", "radius": 6, "context_frames": 2, "topk": 2}


class PerfectFeatures(torch.nn.Module):
    """One-hot id of the flat colour at the centre of each cell: what every pixel is, with no doubt left."""

    def __init__(self, num_objects: int, stride: int = 1) -> None:
        super().__init__()
        self.register_buffer("colours", torch.from_numpy(synthetic.flat_colours(num_objects)).float() / 255)
        self.stride = stride

    def forward(self, frames: Tensor) -> Tensor:
        half = self.stride // 2
        pixels = frames * torch.tensor(IMAGENET_STD).view(3, 1, 1)
        pixels = (pixels + torch.tensor(IMAGENET_MEAN).view(3, 1, 1))[..., half :: self.stride, half :: self.stride]
        distance = (pixels[:, None] - self.colours[:, :, None, None]).square().sum(2)
        return torch.nn.functional.one_hot(distance.argmin(1), len(self.colours)).movedim(-1, 1).float()


class SharpColours(torch.nn.Module):
    """Random Fourier features of the colour: 1 with the same colour, about 0 with any other."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(256, 3, 1, 1, generator=generator) * 20
        self.phases = torch.rand(256, generator=generator).view(-1, 1, 1) * 2 * torch.pi

    def forward(self, frames: Tensor) -> Tensor:
        return (torch.nn.functional.conv2d(frames, self.weights) + self.phases).cos()


class FixedGrid(torch.nn.Module):
    """A function for one frame size, which answers the question for its stride too."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, frames: Tensor) -> Tensor:
        if frames.shape[-2:] != (96, 160):
            return torch.zeros(1, 240, -(-frames.shape[2] // 8), -(-frames.shape[3] // 8))
        return self.function(frames)
