"""`preset="official"`: what the released VideoMAC code does and the paper does not say.

Everything that the paper's own path does not need is here: the LayerNorm after every ConvNeXt stage, GRN over the whole
batch, the initialisation and the parameters that are decayed although they are small.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.layers.grn import GlobalResponseNorm
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from videomac.models.autoencoder import MaskedAutoencoder
from videomac.sparse import Blocks, MaskedCanvas
from videomac.sparse.block_aware import BlockAware
from videomac.sparse.convert import restore
from videomac.sparse.layers import BLOCK_AWARE


class BatchGlobalResponseNorm(GlobalResponseNorm):
    """GRN whose L2 norm runs over all positions of all samples, not of each sample on its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[batch, height, width, channels]` (or channels first, as the parent was told)."""
        norm = x.norm(p=2, dim=(0, *self.spatial_dim), keepdim=True)
        relative = norm / (norm.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        return x + torch.addcmul(self.bias.view(self.wb_shape), self.weight.view(self.wb_shape), x * relative)


class VisibleBatchGlobalResponseNorm(BlockAware, BatchGlobalResponseNorm):
    """`BatchGlobalResponseNorm` under a mask: over all visible positions."""

    kind = "batch statistics over visible positions"

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        """The blocks are all visible positions, and nothing else."""
        return self.parent_forward(x)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        """A hidden cell of 0 adds nothing to the norm."""
        if self.channel_dim == 1:
            return self.parent_forward(layout.hide(x))
        return self.parent_forward(layout.hide(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


BLOCK_AWARE[BatchGlobalResponseNorm] = VisibleBatchGlobalResponseNorm


class StageNormConvNeXt(ConvNeXt):
    """timm's ConvNeXt with one more LayerNorm after every stage, in the main path (`stage_norms`)."""

    stage_norms: nn.ModuleList

    def forward_features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """What timm's `forward_features` does, with the stage norms."""
        x = self.stem(x)
        for stage, norm in zip(self.stages, self.stage_norms, strict=True):
            x = norm(stage(x))
        features: Tensor = self.norm_pre(x)
        return features


def add_stage_norms(backbone: nn.Module) -> nn.Module:
    """Turn a timm ConvNeXt, in place, into a `StageNormConvNeXt`; other networks are left alone."""
    if isinstance(backbone, ConvNeXt) and not isinstance(backbone, StageNormConvNeXt):
        stages: list[dict[str, Any]] = backbone.feature_info
        backbone.stage_norms = nn.ModuleList(LayerNorm2d(stage["num_chs"]) for stage in stages)
        backbone.__class__ = StageNormConvNeXt
    return backbone


def normalize_over_batch(backbone: nn.Module) -> nn.Module:
    """Turn every GRN of a timm network, in place, into a `BatchGlobalResponseNorm`."""
    for module in restore(backbone).modules():
        if type(module) is GlobalResponseNorm:
            module.__class__ = BatchGlobalResponseNorm
    return backbone


def initialize(network: MaskedAutoencoder) -> None:
    """Draw the parameters of a new network as the released code does.

    Truncated normal with standard deviation 1 (not 0.02) for depthwise kernels, for every convolution that is dense
    there (stem and decoder) and for the encoder's linear layers; 0.02 for the other convolutions of the encoder and
    for the mask token; the decoder's linear layers keep PyTorch's default.
    """
    backbone = network.encoder.backbone
    stem = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            narrow = isinstance(module, nn.Conv2d) and module.groups == 1 and module is not stem
            _truncated_normal(module, std=0.02 if narrow else 1.0)
    for module in network.decoder.modules():
        if isinstance(module, nn.Conv2d):
            _truncated_normal(module, std=1.0)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
    nn.init.normal_(network.decoder.mask_token, std=0.02)


def _truncated_normal(module: nn.Conv2d | nn.Linear, std: float) -> None:
    nn.init.trunc_normal_(module.weight, std=std)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def weight_decay_exceptions(model: nn.Module) -> set[str]:
    """Small parameters that the released code decays: GRN's, which are 1 x C there."""
    return {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, GlobalResponseNorm)
        for name, _ in module.named_parameters()
    }
