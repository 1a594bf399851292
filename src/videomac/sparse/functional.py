"""Exchange between blocks, and convolutions, with gradients that are fetched like their outputs.

Autograd would turn each fetch of a neighbour into a scatter, which on a GPU adds in no fixed order; and oneDNN is slow
at the weight gradient of a depthwise kernel over thousands of small images. The functions here take the positions of
all blocks as rows `[positions, channels]` and write each gradient as what it is, a sum over neighbours that a table
names: no two threads add to the same place, so two runs give the same bits.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from videomac.sparse import triton_kernels as kernels


class Windows(torch.autograd.Function):
    """Every block with its halo. The gradient of a position is the sum over the windows that hold it."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "positions channels"],
        fill: float,
        table: Int[Tensor, "blocks window_height window_width"],
        inverse: Int[Tensor, "positions holders"],
        nowhere: int,
    ) -> Float[Tensor, "blocks window_height window_width channels"]:
        """Fetch.

        Args:
            ctx: autograd's.
            rows: all positions of all blocks.
            fill: what is found where nothing is visible.
            table: which row each position of each window is (`Blocks.window_table`).
            inverse: which positions of windows are each row (`Blocks.window_inverse`).
            nowhere: what stands in `inverse` for no position.
        """
        ctx.save_for_backward(inverse)
        ctx.nowhere = nowhere
        return fetch(rows, table, fill)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of `rows`."""
        (inverse,), gradient = ctx.saved_tensors, gradient.reshape(-1, gradient.shape[-1])
        return _sums(gradient, inverse, ctx.nowhere), None, None, None, None


class ColumnConvolution(torch.autograd.Function):
    """A convolution as one matrix product: each output position's whole neighbourhood side by side in one row.

    Where blocks are small a halo is most of a window (at P = 1, eight ninths), and a convolution of thousands of such
    windows spends its time on their edges; the matrix product does not know of edges.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "positions channels"],
        weight: Float[Tensor, "outputs channels kernel_height kernel_width"],
        bias: Float[Tensor, " outputs"] | None,
        table: Int[Tensor, "out_positions taps"],
        inverse: Int[Tensor, "positions taps"],
        nowhere: int,
    ) -> Float[Tensor, "out_positions outputs"]:
        """Convolve.

        Args:
            ctx: autograd's.
            rows: all positions of all blocks.
            weight: the kernels; best channels-last in memory.
            bias: one value an output channel, or None.
            table: which input each tap reads (`Blocks.column_table`).
            inverse: which output reads each input by each tap (`Blocks.column_inverse`).
            nowhere: what stands in `inverse` for no output.
        """
        ctx.save_for_backward(rows, weight, table, inverse)
        ctx.nowhere = nowhere
        return F.linear(fetch(rows, table).flatten(1), as_matrix(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "out_positions outputs"]) -> tuple[Tensor | None, ...]:
        """Gradients of `rows`, `weight` and `bias`."""
        rows, weight, table, inverse = ctx.saved_tensors
        rows_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            # Gradient of each tap, summed over the outputs that read the input.
            handed = (gradient @ as_matrix(weight)).view(-1, rows.shape[1])
            rows_gradient = _sums(handed, inverse, ctx.nowhere)
        if ctx.needs_input_grad[1]:
            outputs, channels, height, width = weight.shape
            weight_gradient = gradient.t() @ fetch(rows, table).flatten(1)
            weight_gradient = weight_gradient.view(outputs, height, width, channels).permute(0, 3, 1, 2)
            weight_gradient = _laid_out_like(weight, weight_gradient)
        if ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(dim=0)
        return rows_gradient, weight_gradient, bias_gradient, None, None, None


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution of stride 1 on windows, dilated or not.

    The gradient of its input is the same convolution with the kernel turned round; that of its weight is the
    convolution of every window with the output's gradient as the kernel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Float[Tensor, "positions channels"],
        weight: Float[Tensor, "channels 1 kernel_height kernel_width"],
        bias: Float[Tensor, " channels"] | None,
        table: Int[Tensor, "blocks window_height window_width"],
        turned_table: Int[Tensor, "blocks window_height window_width"] | None,
        canvas: Int[Tensor, " positions"] | None,
        frames: tuple[int, int, int],
        dilation: int,
    ) -> Float[Tensor, "positions channels"]:
        """Convolve.

        Args:
            ctx: autograd's.
            rows: all positions of all blocks.
            weight: one kernel a channel.
            bias: one value a channel, or None.
            table: `Blocks.window_table`.
            turned_table: the same for the halo of the kernel turned round, or None where that is the same halo.
            canvas: `Blocks.positions` where the whole frame costs less than windows, or None.
            frames: `Blocks.frames`.
            dilation: how far apart the taps lie, both ways.
        """
        ctx.save_for_backward(rows, weight, table, turned_table, canvas)
        ctx.frames, ctx.dilation = frames, dilation
        return _depthwise(rows, weight, bias, table, canvas, frames, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "positions channels"]) -> tuple[Tensor | None, ...]:
        """Gradients of `rows`, `weight` and `bias`."""
        rows, weight, table, turned_table, canvas = ctx.saved_tensors
        rows_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            turned_table = table if turned_table is None else turned_table
            rows_gradient = _depthwise(
                gradient, weight, None, turned_table, canvas, ctx.frames, ctx.dilation, turned=True
            )
        if ctx.needs_input_grad[1]:
            weight_gradient = _depthwise_weight_gradient(rows, gradient, weight, table, ctx.dilation)
            weight_gradient = _laid_out_like(weight, weight_gradient)
        if ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(dim=0)
        return rows_gradient, weight_gradient, bias_gradient, None, None, None, None, None


def as_rows(images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "positions channels"]:
    """All positions as rows; a view when the images are channels-last in memory."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def as_frames(
    rows: Float[Tensor, "positions channels"], canvas: Int[Tensor, " positions"], frames: tuple[int, int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Whole frames, 0 where hidden; channels-last in memory."""
    batch, height, width = frames
    empty = rows.new_zeros(batch * height * width, rows.shape[1])
    return empty.index_copy_(0, canvas.long(), rows).view(batch, height, width, -1).permute(0, 3, 1, 2)


def as_matrix(
    weight: Float[Tensor, "outputs channels kernel_height kernel_width"],
) -> Float[Tensor, "outputs taps_channels"]:
    """A convolution's weight as that of a linear layer; a view where it is channels-last in memory."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def fetch(
    rows: Float[Tensor, "positions channels"], table: Int[Tensor, "*shape"], fill: float = 0.0
) -> Float[Tensor, "*shape channels"]:
    """The rows that a table names, and `fill` where it names the one after the last."""
    # (A copy of all rows for the sake of one more. What is fetched is larger, and to fill holes in it costs more.)
    padded = F.pad(rows, (0, 0, 0, 1), value=fill)
    return padded.index_select(0, table.flatten()).view(*table.shape, -1)


def _sums(rows: Tensor, table: Tensor, nowhere: int) -> Tensor:
    """For each row of a table the sum of the rows that it names, but for the row `nowhere`."""
    return F.embedding_bag(table, rows, mode="sum", padding_idx=nowhere)


def _laid_out_like(weight: Tensor, gradient: Tensor) -> Tensor:
    """A gradient in the precision and memory order of its parameter, as DDP's buckets want it."""
    if gradient.stride() == weight.stride() and gradient.dtype == weight.dtype:
        return gradient
    return torch.empty_like(weight).copy_(gradient)


def _depthwise(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    canvas: Tensor | None,
    frames: tuple[int, int, int],
    dilation: int,
    turned: bool = False,
) -> Tensor:
    if use_kernels(rows):
        return kernels.depthwise(rows, weight, bias, table, turned, dilation)
    groups, weight = rows.shape[1], weight.flip(2, 3) if turned else weight
    if canvas is not None:
        padding = [dilation * (taps // 2) for taps in weight.shape[2:]]
        convolved = F.conv2d(as_frames(rows, canvas, frames), weight, bias, 1, padding, dilation, groups)
        return as_rows(convolved).index_select(0, canvas)
    return as_rows(F.conv2d(fetch(rows, table).permute(0, 3, 1, 2), weight, bias, 1, 0, dilation, groups))


def _depthwise_weight_gradient(rows: Tensor, gradient: Tensor, weight: Tensor, table: Tensor, dilation: int) -> Tensor:
    if use_kernels(rows):
        return kernels.depthwise_weight_gradient(rows, gradient, weight, table, dilation)
    blocks, height, width = table.shape
    channels, size = rows.shape[1], height - dilation * (weight.shape[2] - 1)
    rows = F.pad(rows, (0, 0, 0, 1))
    if size == 1:  # tap by tap: what it reads stays in the cache
        read = table[:, ::dilation, ::dilation].flatten(1)
        taps = [(rows.index_select(0, tap) * gradient).sum(dim=0) for tap in read.unbind(dim=1)]
        return torch.stack(taps, dim=1).view_as(weight)
    # Each channel of each block becomes a channel of one image, its gradient the kernel, their sum the weight's. A few
    # blocks at a time: from pixel to pixel of a wider image would be a leap across memory.
    each = gradient.view(blocks, size * size, channels).transpose(1, 2).reshape(blocks, channels, 1, size, size)
    parts = []
    for some, kernels_of in zip(torch.split(table, 24), torch.split(each, 24), strict=True):
        windows = rows.index_select(0, some.permute(1, 2, 0).flatten()).view(1, height, width, -1).permute(0, 3, 1, 2)
        products = as_rows(F.conv2d(windows, kernels_of.flatten(0, 1), stride=dilation, groups=windows.shape[1]))
        parts.append(products.view(len(products), -1, channels).sum(dim=1))
    return torch.stack(parts).sum(dim=0).t().reshape(weight.shape)


def use_kernels(rows: Tensor) -> bool:
    """Whether the fused kernels compute this: where they are made for it, and have shown that they work."""
    return kernels.usable(rows) and kernels_work(rows.device)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@functools.cache
def kernels_work(device: torch.device) -> bool:
    """Try the kernels on a small case, once per process and device; where they fail a warning says why.

    VIDEOMAC_KERNELS=0 in the environment turns them off.
    """
    if os.environ.get("VIDEOMAC_KERNELS") == "0":
        return False
    try:
        error = max(_kernel_error(device, dtype) for dtype in kernels.DTYPES)
        reason = "" if error < 0.02 else f"their result is wrong by {error:.2g} of its largest value"
    except Exception as failure:  # whatever a compiler or a driver may raise
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())[:300]
    if reason:
        warnings.warn(
            f"The fused kernels of the depthwise convolution do not work on {device} ({reason}). PyTorch's own "
            "operations take their place: the same results, more slowly. VIDEOMAC_KERNELS=0 in the environment turns "
            "the kernels off.",
            stacklevel=2,
        )
    return not reason


def _kernel_error(device: torch.device, dtype: torch.dtype) -> float:
    """Largest difference between kernels and plain operations in float64, relative to the largest value."""
    generator = torch.Generator().manual_seed(0)
    table = torch.tensor([[[4, 4, 4, 4], [4, 0, 1, 4], [4, 2, 3, 4], [4, 4, 4, 4]]], dtype=torch.int32)  # one 2x2 block
    rows, gradient = (torch.randn(4, 40, generator=generator).to(dtype) for _ in range(2))
    weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((40, 1, 3, 3), (40,)))
    exact_rows, exact_gradient, exact_weight = rows.double(), gradient.double(), weight.double()
    expected = (
        _depthwise(exact_rows, exact_weight, bias.double(), table, None, (1, 2, 2), 1),
        _depthwise(exact_gradient, exact_weight, None, table, None, (1, 2, 2), 1, turned=True),
        _depthwise_weight_gradient(exact_rows, exact_gradient, exact_weight, table, 1),
    )
    rows, gradient, weight, bias, table = (tensor.to(device) for tensor in (rows, gradient, weight, bias, table))
    found = (
        kernels.depthwise(rows, weight, bias, table),
        kernels.depthwise(gradient, weight, None, table, turned=True),
        kernels.depthwise_weight_gradient(rows, gradient, weight, table),
    )
    errors = [float((a.double().cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]
    return math.inf if any(math.isnan(error) for error in errors) else max(errors)


class GlobalResponseNormalization(torch.autograd.Function):
    """`x * (1 + weight * n / mean(n)) + bias`, n being the norm of a channel over a sample's positions."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "samples positions channels"],
        weight: Float[Tensor, " channels"],
        bias: Float[Tensor, " channels"],
        epsilon: float,
    ) -> Float[Tensor, "samples positions channels"]:
        """Normalise; norms are taken in float32 at least.

        Args:
            ctx: autograd's.
            x: all positions of each sample.
            weight: gamma, one value a channel.
            bias: beta, one value a channel.
            epsilon: added to the mean of the norms.
        """
        exact = x if x.dtype == torch.float64 else x.float()
        norm = exact.square().sum(dim=1, keepdim=True).sqrt()
        mean = norm.mean(dim=-1, keepdim=True) + epsilon
        scale = (1 + weight * (norm / mean)).to(x.dtype)
        ctx.save_for_backward(x, weight, norm, mean, scale)
        return torch.addcmul(bias.to(x.dtype), x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "samples positions channels"]) -> tuple[Tensor | None, ...]:
        """Gradients of `x`, `weight` and `bias`."""
        x, weight, norm, mean, scale = ctx.saved_tensors
        by_scale = (gradient * x).sum(dim=1, keepdim=True, dtype=norm.dtype)
        by_relative = by_scale * weight
        by_norm = (by_relative - (by_relative * norm / mean).mean(dim=-1, keepdim=True)) / mean
        # A channel that is 0 everywhere gets the gradient 0 through its norm, as PyTorch's `norm` gives it.
        along_x = torch.where(norm > 0, by_norm / norm, 0).to(x.dtype)
        weight_gradient = (by_scale * norm / mean).sum(dim=(0, 1)).to(weight.dtype)
        bias_gradient = gradient.sum(dim=(0, 1), dtype=norm.dtype).to(weight.dtype)
        return (gradient * scale).addcmul_(x, along_x), weight_gradient, bias_gradient, None
