"""Layers that mix positions: convolutions and pooling, which borrow a halo from visible neighbours.

To such a layer hidden positions are what lies outside the frame. Some layers are known on the masked canvas only.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from timm.layers import (
    AvgPool2dSame,
    BlurPool2d,
    Conv2dSame,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, nn

from videomac.sparse.block_aware import BlockAware, plain_class
from videomac.sparse.blocks import Blocks, Halo, Kernel
from videomac.sparse.canvas import MaskedCanvas
from videomac.sparse.functional import ColumnConvolution, DepthwiseConvolution, as_matrix, as_rows


class Mixing(BlockAware):
    """A layer with a kernel: hidden cells are `fill` to it, like what lies outside the frame."""

    kind = "halo"
    fill: ClassVar[float] = 0.0

    def halo(self) -> Halo:
        """How far the kernel reaches beyond a block."""
        raise NotImplementedError

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        return self.parent_forward(layout.hide(x, self.fill))

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        return self.on_windows(layout.windows(x, self.halo(), self.fill))

    def on_windows(self, windows: Tensor) -> Tensor:
        """The layer's arithmetic without any padding of its own."""
        raise NotImplementedError

    def describe(self) -> str:
        top, bottom, left, right = self.halo()
        return f"halo {top},{bottom},{left},{right}"


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _same(kernel: int, stride: int) -> tuple[int, int]:
    """Halo of timm's "same" padding: a property of the layer on any size that its stride divides."""
    total = max(kernel - stride, 0)
    return total // 2, total - total // 2


def _symmetric(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Halo of ordinary padding; a kernel that ends inside its own stride needs nothing to the right."""
    return padding, max(kernel - stride - padding, 0)


def _keeps_grid(kernel: int, stride: int, padding: int) -> bool:
    """Whether a map of size n * stride becomes one of size n, for every n."""
    return 0 <= 2 * padding - kernel + stride < stride


class HaloConv2d(Mixing, nn.Conv2d):
    """Convolution with ordinary zero padding."""

    def extent(self) -> tuple[int, int]:
        """Kernel size with its dilation."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))  # type: ignore[return-value]

    def halo(self) -> Halo:
        (h, w), padding = self.extent(), self._numeric_padding()
        return Halo(*_symmetric(h, self.stride[0], padding[0]), *_symmetric(w, self.stride[1], padding[1]))

    # Both measured on CPUs. Up to this P of the output the copies of a matrix product cost less than windows:
    columns_up_to: ClassVar[int] = 4
    # Windows that hold more than this many times the positions of the whole frame cost more than the frame:
    canvas_above: ClassVar[float] = 2.0

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        size, halo = x.shape[-1], self.halo()
        if min(halo) >= 0 and self.groups == 1 and size // max(self.stride) <= self.columns_up_to:
            kernel = Kernel(_pair(self.kernel_size), _pair(self.stride), _pair(self.dilation), halo)
            table, inverse = layout.column_table(size, kernel), layout.column_inverse(size, kernel)
            rows = ColumnConvolution.apply(*self._operands(x), table, inverse, layout.nowhere(table, halo))
        elif not self._depthwise():
            return super().on_blocks(x, layout)
        else:
            symmetric = halo.turned() == halo
            # (torch.compile takes no tensor twice.)
            turned_table = None if symmetric else layout.window_table(size, halo.turned())
            wide = symmetric and layout.window_share(size, halo) > self.canvas_above
            canvas = layout.positions(size) if wide else None
            tables = layout.window_table(size, halo), turned_table, canvas, layout.frames(size)
            rows = DepthwiseConvolution.apply(*self._operands(x), *tables, self.dilation[0])
        return layout.as_images(rows, size // self.stride[0])

    def _depthwise(self) -> bool:
        plain = set(self.stride) == {1} and len(set(self.dilation)) == 1
        return plain and self.groups == self.in_channels == self.out_channels

    def _operands(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Positions, weight and bias, in the precision that autocast asks of a convolution."""
        operands = as_rows(x), self.weight, self.bias
        if not torch.is_autocast_enabled(x.device.type):
            return operands
        dtype = torch.get_autocast_dtype(x.device.type)
        return cast("tuple[Tensor, Tensor, Tensor | None]", tuple(o if o is None else o.to(dtype) for o in operands))

    def on_windows(self, windows: Tensor) -> Tensor:
        return F.conv2d(windows, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def obstacle(self) -> str | None:
        if self.padding_mode != "zeros":
            return f"{self.padding_mode} padding"
        padding = self._numeric_padding()
        if not all(_keeps_grid(k, s, p) for k, s, p in zip(self.extent(), self.stride, padding, strict=True)):
            return (
                f"kernel {self.kernel_size}, stride {self.stride}, padding {self.padding} do not divide the map evenly"
            )
        return None

    def _numeric_padding(self) -> tuple[int, int]:
        if self.padding == "same":  # PyTorch's own "same", stride 1 only
            return (self.extent()[0] // 2, self.extent()[1] // 2)
        return (0, 0) if self.padding == "valid" else _pair(self.padding)


class HaloConv2dSame(HaloConv2d, Conv2dSame):
    """Convolution with timm's (TensorFlow's) "same" padding."""

    def halo(self) -> Halo:
        h, w = self.extent()
        return Halo(*_same(h, self.stride[0]), *_same(w, self.stride[1]))

    def parent_forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Conv2dSame.forward(self, x))  # type: ignore[no-untyped-call]

    def obstacle(self) -> str | None:
        return None


class PatchConv2d(BlockAware, nn.Conv2d):
    """Convolution whose taps all lie in its own stride: a 1x1, a patchify stem, the 2x2 downsampling of ConvNeXt.

    It never looks across a border. It is here because as one matrix product over the positions of all blocks it costs
    a fraction of what many small images cost (at P = 1 a tenth); and because of a 1x1 with a stride, whose
    channels-last float32 backward in oneDNN writes beyond its buffers for few input channels: what it reads is
    picked first.
    """

    kind = "matrix product"

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        if self.groups > 1:
            return self._of_picked(x)
        (high, wide), (down, along), (blocks, channels, height, width) = self.kernel_size, self.stride, x.shape
        strides = x.permute(0, 2, 3, 1).reshape(blocks, height // down, down, width // along, along, channels)
        taps = strides[:, :, :high, :, :wide].transpose(2, 3).reshape(-1, high * wide * channels)
        return layout.as_images(F.linear(taps, as_matrix(self.weight), self.bias), height // down)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        return self._of_picked(x) if self.kernel_size == (1, 1) else self.parent_forward(x)

    def _of_picked(self, x: Tensor) -> Tensor:
        """A 1x1 convolution of the positions that its stride reads."""
        picked = x[:, :, :: self.stride[0], :: self.stride[1]]
        return F.conv2d(picked, self.weight, self.bias, groups=self.groups)

    @classmethod
    def fits(cls, layer: nn.Conv2d) -> bool:
        """Whether a convolution is of this kind."""
        if layer.padding not in ((0, 0), "valid"):
            return False
        if layer.kernel_size == (1, 1):  # in groups it is here for its stride only
            return layer.groups == 1 or max(layer.stride) > 1
        inside = all(k <= s for k, s in zip(layer.kernel_size, layer.stride, strict=True))
        return inside and layer.groups == 1 and layer.dilation == (1, 1)


class HaloMaxPool2d(Mixing, nn.MaxPool2d):
    """Max pooling: hidden cells are minus infinity."""

    fill = float("-inf")

    def halo(self) -> Halo:
        (k, s), (p, d) = (_pair(self.kernel_size), _pair(self.stride)), (_pair(self.padding), _pair(self.dilation))
        extent = [d[i] * (k[i] - 1) + 1 for i in (0, 1)]
        return Halo(*_symmetric(extent[0], s[0], p[0]), *_symmetric(extent[1], s[1], p[1]))

    def on_windows(self, windows: Tensor) -> Tensor:
        return F.max_pool2d(windows, self.kernel_size, self.stride, 0, self.dilation)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        # Where a whole window is hidden the maximum is minus infinity, which an activation's backward would turn into
        # NaN.
        return layout.hide(super().on_canvas(x, layout))

    def obstacle(self) -> str | None:
        k, s, p, d = (_pair(v) for v in (self.kernel_size, self.stride, self.padding, self.dilation))
        if self.return_indices or not all(_keeps_grid(d[i] * (k[i] - 1) + 1, s[i], p[i]) for i in (0, 1)):
            return f"kernel {k}, stride {s}, padding {p} do not divide the map evenly"
        return None


class HaloMaxPool2dSame(HaloMaxPool2d, MaxPool2dSame):
    """Max pooling with "same" padding."""

    def halo(self) -> Halo:
        (k, s) = (_pair(self.kernel_size), _pair(self.stride))
        return Halo(*_same(k[0], s[0]), *_same(k[1], s[1]))

    def parent_forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, MaxPool2dSame.forward(self, x))  # type: ignore[no-untyped-call]

    def obstacle(self) -> str | None:
        return None


class HaloAvgPool2d(Mixing, nn.AvgPool2d):
    """Average pooling: hidden cells are 0 and count."""

    def halo(self) -> Halo:
        k, s, p = _pair(self.kernel_size), _pair(self.stride), _pair(self.padding)
        return Halo(*_symmetric(k[0], s[0], p[0]), *_symmetric(k[1], s[1], p[1]))

    def on_windows(self, windows: Tensor) -> Tensor:
        return F.avg_pool2d(windows, self.kernel_size, self.stride, 0, False, True, self.divisor_override)

    def obstacle(self) -> str | None:
        k, s, p = _pair(self.kernel_size), _pair(self.stride), _pair(self.padding)
        if not all(_keeps_grid(k[i], s[i], p[i]) for i in (0, 1)):
            return f"kernel {k}, stride {s}, padding {p} do not divide the map evenly"
        if any(p) and not self.count_include_pad and self.divisor_override is None:
            return "an average that leaves out the frame's outside (count_include_pad=False)"
        return None


class HaloAvgPool2dSame(HaloAvgPool2d, AvgPool2dSame):
    """Average pooling with "same" padding."""

    def halo(self) -> Halo:
        (k, s) = (_pair(self.kernel_size), _pair(self.stride))
        return Halo(*_same(k[0], s[0]), *_same(k[1], s[1]))

    def parent_forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, AvgPool2dSame.forward(self, x))  # type: ignore[no-untyped-call]

    def obstacle(self) -> str | None:
        return None


class _CanvasOnly(Mixing):
    """A layer that mixes positions in its own way: right on the masked canvas, not known on blocks."""

    kind = "masked only"

    def obstacle(self) -> str | None:
        return f"{plain_class(type(self)).__name__} is known on the masked canvas only"

    def describe(self) -> str:
        return self.kind


class CanvasBlurPool2d(_CanvasOnly, BlurPool2d):
    """Blur pooling (its reflection at the frame's border is its own)."""


class CanvasStdConv2d(_CanvasOnly, StdConv2d):
    """Weight-standardised convolution."""


class CanvasStdConv2dSame(_CanvasOnly, StdConv2dSame):
    """Weight-standardised convolution, "same" padding."""


class CanvasScaledStdConv2d(_CanvasOnly, ScaledStdConv2d):
    """Scaled weight-standardised convolution."""


class CanvasScaledStdConv2dSame(_CanvasOnly, ScaledStdConv2dSame):
    """Scaled weight-standardised convolution, "same" padding."""
