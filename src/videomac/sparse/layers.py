"""Layers that know about blocks, and which layer each of them stands in for.

Each is a subclass of the layer it stands in for, with the parent's parameters, names and arithmetic. With no mask it
*is* its parent; with one it asks the layout in its slot for what it needs: `on_blocks` when the visible patches are
the batch, `on_canvas` when the whole frame is there with hidden cells in it. There are three kinds:

- a layer that mixes positions borrows a halo from its visible neighbours (`mixing.py`);
- BatchNorm takes its statistics over the visible positions of the batch, which blocks mode gives for free;
- a layer with statistics over positions, or one draw per sample, runs on the visible positions of one sample.
"""

from __future__ import annotations

from timm.layers import (
    BatchNormAct2d,
    CecaModule,
    DropPath,
    EcaModule,
    EffectiveSEModule,
    GroupNorm,
    GroupNorm1,
    GroupNormAct,
    SEModule,
)
from timm.layers.grn import GlobalResponseNorm
from timm.layers.squeeze_excite import SqueezeExciteCl
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from videomac.sparse import mixing
from videomac.sparse.block_aware import BlockAware, plain_class
from videomac.sparse.blocks import Blocks
from videomac.sparse.canvas import MaskedCanvas
from videomac.sparse.functional import GlobalResponseNormalization

# Statistics over the visible positions of the batch ------------------------------------------------------------------


class _VisibleBatchNorm(BlockAware):
    kind = "batch statistics over visible positions"

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        return self.parent_forward(x)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        uses_batch = self.training or self.running_mean is None
        return layout.on_visible(x, self.parent_forward) if uses_batch else self.parent_forward(x)


class VisibleBatchNorm2d(_VisibleBatchNorm, nn.BatchNorm2d):
    """Batch normalisation."""


class VisibleBatchNormAct2d(_VisibleBatchNorm, BatchNormAct2d):
    """timm's batch normalisation with an activation."""


# One sample at a time ------------------------------------------------------------------------------------------------


class PerSample(BlockAware):
    """A layer that treats all positions of a sample alike, by their mean, norm, variance or one draw.

    It runs unmodified on the sample's visible blocks, stacked to one tall image.
    """

    kind = "per sample"

    def channels_last(self) -> bool:
        """Whether the layer takes `[B, H, W, C]`."""
        return False

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        last = self.channels_last()
        return layout.unstack(self.parent_forward(layout.stack(x, last)), last)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        if not self.channels_last():
            return layout.on_each_sample(x, self.parent_forward)

        def channels_first(image: Tensor) -> Tensor:
            return self.parent_forward(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

        return layout.on_each_sample(x.permute(0, 3, 1, 2), channels_first).permute(0, 2, 3, 1)


class SampleGlobalResponseNorm(PerSample, GlobalResponseNorm):
    """ConvNeXt V2's GRN: the L2 norm of a channel over the sample's visible positions."""

    def channels_last(self) -> bool:
        return bool(self.channel_dim == -1)

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        if not self.channels_last():
            return super().on_blocks(x, layout)
        sample = x.reshape(layout.batch, -1, x.shape[-1])
        normalised: Tensor = GlobalResponseNormalization.apply(sample, self.weight, self.bias, self.eps)
        return normalised.view_as(x)


class SampleSEModule(PerSample, SEModule):
    """Squeeze-excite (RegNetY, SE-ResNets)."""


class SampleSqueezeExcite(PerSample, SqueezeExcite):
    """Squeeze-excite (EfficientNet, MobileNetV3)."""


class SampleSqueezeExciteCl(PerSample, SqueezeExciteCl):
    """Squeeze-excite, channels last."""

    def channels_last(self) -> bool:
        return True


class SampleEffectiveSEModule(PerSample, EffectiveSEModule):
    """Effective squeeze-excite (VoVNet, HGNet)."""


class SampleEcaModule(PerSample, EcaModule):
    """Efficient channel attention."""


class SampleCecaModule(PerSample, CecaModule):
    """Efficient channel attention, circular."""


class SampleTorchGroupNorm(PerSample, nn.GroupNorm):
    """Group normalisation."""


class SampleGroupNorm(PerSample, GroupNorm):
    """timm's group normalisation."""


class SampleGroupNorm1(PerSample, GroupNorm1):
    """timm's group normalisation with one group."""


class SampleGroupNormAct(PerSample, GroupNormAct):
    """timm's group normalisation with an activation."""


class SampleDropPath(PerSample, DropPath):
    """Stochastic depth: one draw for each sample, not for each block."""

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        return self.parent_forward(x)


BLOCK_AWARE: dict[type[nn.Module], type[BlockAware]] = {
    plain_class(cls): cls
    for cls in (
        mixing.HaloConv2d,
        mixing.HaloConv2dSame,
        mixing.HaloMaxPool2d,
        mixing.HaloMaxPool2dSame,
        mixing.HaloAvgPool2d,
        mixing.HaloAvgPool2dSame,
        mixing.CanvasBlurPool2d,
        mixing.CanvasStdConv2d,
        mixing.CanvasStdConv2dSame,
        mixing.CanvasScaledStdConv2d,
        mixing.CanvasScaledStdConv2dSame,
        VisibleBatchNorm2d,
        VisibleBatchNormAct2d,
        SampleGlobalResponseNorm,
        SampleSEModule,
        SampleSqueezeExcite,
        SampleSqueezeExciteCl,
        SampleEffectiveSEModule,
        SampleEcaModule,
        SampleCecaModule,
        SampleTorchGroupNorm,
        SampleGroupNorm,
        SampleGroupNorm1,
        SampleGroupNormAct,
        SampleDropPath,
    )
}
"""Layer class to the block-aware class that stands in for it."""
