"""Feature maps of any backbone: timm ConvNets at any stage and stride, ViTs, raw pixels, any module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from videomac.errors import UserError
from videomac.evaluate.protocols import Normalization, Stride
from videomac.evaluate.stride import at_stage, network_name, stages_of

RAW_PIXELS = "raw-pixels"
"""The backbone that is none: a cell's feature is its pixels."""
DINO_STD = (0.228, 0.224, 0.225)


class FeatureExtractor(nn.Module):
    """A backbone as a function from frames to feature maps with `ceil(H / stride)` rows.

    Attributes:
        stride: pixels per cell.
        channels: length of a cell's feature.
        description: what the numbers depend on, for the record.
    """

    def __init__(
        self,
        backbone: nn.Module | Callable[[Tensor], Tensor] | str,
        *,
        stage: int = -1,
        stride: Stride = "native",
        dilate: bool = False,
        normalization: Normalization = "backbone",
        required: bool = False,
    ) -> None:
        """Prepare a backbone; it is copied, never changed.

        Args:
            backbone: a timm network; any other module or function `[B, 3, H, W] -> [B, C, h, w]`, whose features are
                taken as they are; or "raw-pixels".
            stage: of a hierarchical network, 1 to 4 (strides 4 to 32); -1 is the last.
            stride: pixels per cell to evaluate at.
            dilate: dilate the layers after a removed stride.
            normalization: whose mean and standard deviation the pixels get.
            required: refuse a stride that the network cannot have; otherwise its native stride is used.

        Raises:
            UserError: there is no such stage, or the stride cannot be had.
        """
        super().__init__()
        name = network_name(backbone)
        network, stage_name, restrided = _network_at(backbone, stage, stride, dilate, required)
        self.network = network.eval()
        self.stride, self.channels, self.pads = _probe(self.network, name)
        if stride not in ("native", self.stride) and (required or restrided):
            raise UserError(
                f"{name} has features of stride {self.stride} only, not {stride}: pass --stride native, "
                "or a network with several stages"
            )
        mean, std = _pixel_statistics(backbone, normalization)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.description: dict[str, Any] = {
            "backbone": name,
            "stage": stage_name,
            "stride": self.stride,
            "channels": self.channels,
            "dilate": dilate and restrided,
            "mean": [round(value, 4) for value in mean],
            "std": [round(value, 4) for value in std],
        }

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of a frame."""
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, frames: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Features of RGB frames with values in [0, 1].

        Frames that the stride does not divide are padded at the right and bottom with the mean colour, unless the
        network itself rounds the size of its map up.

        Raises:
            ValueError: the map has not the size it should have.
        """
        height, width = frames.shape[-2:]
        frames = (frames - self.mean) / self.std
        if self.pads:
            frames = F.pad(frames, (0, -width % self.stride, 0, -height % self.stride))
        features: Tensor = self.network(frames)
        if features.shape[-2:] != self.grid(height, width):
            raise ValueError(
                f"{self.description['backbone']} gives a {tuple(features.shape[-2:])} map for {height}x{width} frames, "
                f"but stride {self.stride} means {self.grid(height, width)}"
            )
        return features


def _network_at(
    backbone: nn.Module | Callable[[Tensor], Tensor] | str, stage: int, stride: Stride, dilate: bool, required: bool
) -> tuple[nn.Module, str, bool]:
    """A copy of a backbone as a module from frames to maps, its stage in words, and whether strides were set to 1."""
    if isinstance(backbone, str):
        if backbone != RAW_PIXELS:
            raise UserError(f"{backbone!r} must be loaded first (videomac.models.resolve)")
        return nn.PixelUnshuffle(8 if stride == "native" else stride), "pixels", False
    if isinstance(backbone, nn.Module) and _is_hierarchical(backbone):
        if len(stages_of(backbone)) == 1 and not required:  # isotropic: there is nothing to take strides from
            stride = "native"
        network, stage_name = at_stage(copy.deepcopy(backbone), stage, stride, dilate)
        return network, stage_name, stride != "native"
    if _is_vit(backbone):
        return _ViTFeatures(copy.deepcopy(backbone)), "last", False
    network = copy.deepcopy(backbone) if isinstance(backbone, nn.Module) else _Function(backbone)
    return network, "output", False


class _Function(nn.Module):
    """Any function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, frames: Tensor) -> Tensor:
        return self.function(frames)


class _ViTFeatures(nn.Module):
    """Last block of a timm ViT after the final norm, prefix tokens dropped, as a map; any frame size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        embed = getattr(model, "patch_embed", None)
        if hasattr(model, "dynamic_img_size") and embed is not None and not model.dynamic_img_size:
            from timm.layers.format import Format

            # What timm's own `dynamic_img_size=True` does when a model is made: position embeddings are resampled
            # (bicubic) to the frame's grid.
            model.dynamic_img_size = True
            embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.model.forward_intermediates(frames, indices=1, norm=True, intermediates_only=True)[-1]
        return features


def _pixel_statistics(backbone: Any, normalization: Normalization) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if normalization == "dino":
        return IMAGENET_MEAN, DINO_STD
    config = getattr(backbone, "pretrained_cfg", None) or {}
    if normalization == "imagenet" or not config.get("mean"):
        return IMAGENET_MEAN, IMAGENET_STD
    return tuple(config["mean"]), tuple(config["std"])


def _is_hierarchical(model: Any) -> bool:
    return hasattr(model, "forward_features") and not _is_vit(model) and bool(stages_of(model))


def _is_vit(model: Any) -> bool:
    return hasattr(model, "forward_intermediates") and hasattr(model, "blocks") and hasattr(model, "patch_embed")


def _probe(network: nn.Module, name: str) -> tuple[int, int, bool]:
    """Stride, channels, and whether frames that the stride does not divide must be padded."""
    parameter = next(network.parameters(), torch.zeros(()))
    floating = parameter.dtype if parameter.is_floating_point() else torch.float32

    def shape_for(side: int) -> tuple[int, ...]:
        output = network(torch.zeros(1, 3, side, side, dtype=floating, device=parameter.device))
        return tuple(int(size) for size in getattr(output, "shape", ()))

    shape: tuple[int, ...] = ()
    problem = ""
    with torch.inference_mode():
        for side in (160, 224):  # patches of 16 and of 14
            try:
                shape = shape_for(side)
                break
            except (RuntimeError, AssertionError, ValueError) as error:
                problem = f": {str(error).splitlines()[0]}"
        else:
            raise UserError(f"{name} cannot take frames of any size{problem}")
        if len(shape) != 4 or shape[2] != shape[3] or not shape[2] or side % shape[2]:
            raise UserError(
                f"{name} must map frames [B, 3, H, W] to feature maps [B, C, H / s, W / s], but makes {shape} of "
                f"[1, 3, {side}, {side}]"
            )
        stride = side // shape[2]
        if stride == 1:
            return 1, shape[1], False
        try:
            rounds_up = shape_for(4 * stride + 1)[2] == 5
        except (RuntimeError, AssertionError, ValueError):
            rounds_up = False
    return stride, shape[1], not rounds_up
