"""`videomac inspect NAME`: what a network is, what it costs, and how the engine computes each layer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from videomac.config import as_size
from videomac.errors import UserError
from videomac.inspection.config import InspectConfig
from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask
from videomac.sparse import LayerReport


@dataclass(frozen=True)
class Stage:
    """One resolution of the network: where it ends, pixels per cell, and channels."""

    module: str
    stride: int
    channels: int


@dataclass(frozen=True)
class Inspection:
    """What `inspect_backbone` found out.

    Attributes:
        name: the network.
        parameters: with the 1000-way head of the standard network.
        encoder_parameters: those that pre-training trains.
        multiply_adds: of one frame through the standard network, head included (Table 2 of the paper).
        encoder_multiply_adds: of one frame through the encoder, dense.
        masked_multiply_adds: of one frame through the encoder, with the mask.
        mode: "blocks" or "masked".
        blocks_obstacle: why not "blocks", or None.
        stride: pixels per cell of the output.
        num_features: channels of the output.
        stages: the resolutions on the way.
        layers: what became of each layer.
    """

    name: str
    parameters: int
    encoder_parameters: int
    multiply_adds: int
    encoder_multiply_adds: int
    masked_multiply_adds: int
    mode: str
    blocks_obstacle: str | None
    stride: int
    num_features: int
    stages: list[Stage]
    layers: list[LayerReport]


def run(config: InspectConfig) -> None:
    """Print the inspection of one network."""
    size = as_size(config.image_size)
    print(format_inspection(inspect_backbone(config.name, size, config.mask_ratio), size, config.mask_ratio))
    if config.picture is not None:
        from videomac.inspection.mask_dissipation import draw

        draw(config.name, size, config.mask_ratio, config.picture)
        print(f"\nWrote {config.picture}: where a dense network carries what it sees, and where the sparse one does.")


def inspect_backbone(name: str, image_size: tuple[int, int] = (224, 224), mask_ratio: float = 0.75) -> Inspection:
    """Measure a network; operations are counted by PyTorch's FlopCounterMode (a multiply-add is two of its operations).

    Args:
        name: a timm name, or one of our own.
        image_size: (height, width) in pixels.
        mask_ratio: share of patches that is hidden.

    Raises:
        UserError: the network is unknown, or cannot be used; the sentence names the layer that stands in the way.
    """
    create_backbone(name)  # an unknown name is refused here
    # BatchNorm counts nothing and must not mind one position per channel: evaluation mode throughout.
    standard: nn.Module = timm.create_model(name).eval()
    frame = torch.zeros(1, 3, *image_size)
    encoder = SparseEncoder(name).eval()
    grid = (image_size[0] // encoder.stride, image_size[1] // encoder.stride)
    if grid[0] * encoder.stride != image_size[0] or grid[1] * encoder.stride != image_size[1]:
        raise UserError(
            f"--image_size {image_size[0]}x{image_size[1]} is not a multiple of the stride {encoder.stride} of {name}"
        )
    mask = random_mask(1, grid, mask_ratio)
    return Inspection(
        name=name,
        parameters=sum(p.numel() for p in standard.parameters()),
        encoder_parameters=sum(p.numel() for p in encoder.parameters() if p.requires_grad),
        multiply_adds=_multiply_adds(standard, frame),
        encoder_multiply_adds=_multiply_adds(encoder, frame),
        masked_multiply_adds=_multiply_adds(encoder, frame, mask),
        mode=encoder.mode,
        blocks_obstacle=encoder.blocks_obstacle,
        stride=encoder.stride,
        num_features=encoder.num_features,
        stages=[
            Stage(str(info["module"]), int(info["reduction"]), int(info["num_chs"]))
            for info in getattr(encoder.backbone, "feature_info", [])
        ],
        layers=encoder.layers,
    )


def format_inspection(found: Inspection, image_size: tuple[int, int], mask_ratio: float) -> str:
    """The inspection as text for a terminal."""
    height, width = image_size
    share = found.masked_multiply_adds / found.encoder_multiply_adds
    lines = [
        found.name,
        f"  network         {_millions(found.parameters)} parameters, {_billions(found.multiply_adds)} multiply-adds "
        f"for {height}x{width} pixels (with its classifier)",
        f"  encoder         {_millions(found.encoder_parameters)} parameters, "
        f"{_billions(found.encoder_multiply_adds)} multiply-adds dense, {_billions(found.masked_multiply_adds)} "
        f"with {mask_ratio:.0%} hidden ({share:.1%})",
        f"  output          {found.num_features} channels, stride {found.stride}",
        f"  runs            {_mode(found)}",
        "",
        f"  {'stage':<24} {'stride':>6} {'channels':>8}   map of the frame",
    ]
    lines += [
        f"  {stage.module:<24} {stage.stride:>6} {stage.channels:>8}   {height // stage.stride}x{width // stage.stride}"
        for stage in found.stages
    ]
    lines += ["", f"  {'layers':>6}  {'became':<42} {'layer':<24} names"]
    groups = Counter((layer.became, layer.layer, _pattern(layer.name)) for layer in found.layers)
    lines += [
        f"  {count:>6}  {became:<42} {layer:<24} {pattern}"
        for (became, layer, pattern), count in sorted(groups.items())
    ]
    return "\n".join(lines)


def _multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return int(counter.get_total_flops()) // 2


def _mode(found: Inspection) -> str:
    if found.blocks_obstacle is None:
        return "on visible blocks (mode='blocks')"
    return f"on the masked canvas (mode='masked'): {found.blocks_obstacle}"


def _pattern(name: str) -> str:
    """Layers of one kind in one line: numbers in their names become stars."""
    return re.sub(r"\d+(?=\.|$)", "*", name)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}M"


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f}G"
