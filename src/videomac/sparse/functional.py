"""Exchange between blocks, and convolutions, with gradients that are fetched like their outputs.

Autograd would turn each fetch of a neighbour into a scatter, which on a GPU adds in no fixed order; and oneDNN is slow
at the weight gradient of a depthwise kernel over thousands of small images. The functions here take the positions of
all blocks as rows `[positions, channels]` and write each gradient as what it is, a sum over neighbours that a table
names: no two threads add to the same place, so two runs give the same bits.
"""

from __future__ import annotations

import math
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
    ) -> Float[Tensor, "blocks window_height window_width channels"]:
        """Gather.

        Args:
            ctx: autograd's.
            rows: all positions of all blocks.
            fill: what is found where nothing is visible.
            table: which row each position of each window is (`Blocks.window_table`).
            inverse: which positions of windows are each row (`Blocks.window_inverse`).
        """
        ctx.save_for_backward(inverse)
        return _with_sentinel(rows, fill).index_select(0, table.flatten()).view(*table.shape, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of `rows`."""
        handed = _with_sentinel(gradient.reshape(-1, gradient.shape[-1]))
        return F.embedding_bag(ctx.saved_tensors[0], handed, mode="sum", padding_idx=len(handed) - 1), None, None, None


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
    ) -> Float[Tensor, "out_positions outputs"]:
        """Convolve.

        Args:
            ctx: autograd's.
            rows: all positions of all blocks.
            weight: the kernels; best channels-last in memory.
            bias: one value an output channel, or None.
            table: which input each tap reads (`Blocks.column_tables`).
            inverse: which output reads each input by each tap (`Blocks.column_tables`).
        """
        ctx.save_for_backward(rows, weight, table, inverse)
        return F.linear(_columns(rows, table), as_matrix(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "out_positions outputs"]) -> tuple[Tensor | None, ...]:
        """Gradients of `rows`, `weight` and `bias`."""
        rows, weight, table, inverse = ctx.saved_tensors
        rows_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            # What each output hands back to each tap, and for each input the sum of what it is handed.
            handed = (_with_sentinel(gradient) @ as_matrix(weight)).view(-1, rows.shape[1])
            rows_gradient = F.embedding_bag(inverse, handed, mode="sum", padding_idx=handed.shape[0] - 1)
        if ctx.needs_input_grad[1]:
            outputs, channels, height, width = weight.shape
            weight_gradient = gradient.t() @ _columns(rows, table)
            weight_gradient = weight_gradient.view(outputs, height, width, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(dim=0)
        return rows_gradient, weight_gradient, bias_gradient, None, None


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution of stride 1 on windows.

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
        """
        ctx.save_for_backward(rows, weight, table, turned_table, canvas)
        ctx.frames = frames
        return _depthwise(rows, weight, bias, table, canvas, frames)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "positions channels"]) -> tuple[Tensor | None, ...]:
        """Gradients of `rows`, `weight` and `bias`."""
        rows, weight, table, turned_table, canvas = ctx.saved_tensors
        rows_gradient = weight_gradient = bias_gradient = None
        if ctx.needs_input_grad[0]:
            turned_table = table if turned_table is None else turned_table
            rows_gradient = _depthwise(gradient, weight.flip(2, 3), None, turned_table, canvas, ctx.frames)
        if ctx.needs_input_grad[1]:
            weight_gradient = _depthwise_weight_gradient(rows, gradient, weight, table)
        if ctx.needs_input_grad[2]:
            bias_gradient = gradient.sum(dim=0)
        return rows_gradient, weight_gradient, bias_gradient, None, None, None, None


def as_rows(images: Float[Tensor, "images channels height width"]) -> Float[Tensor, "positions channels"]:
    """All positions as rows; a view when the images are channels-last in memory."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def as_frames(
    rows: Float[Tensor, "positions channels"], canvas: Int[Tensor, " positions"], frames: tuple[int, int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Whole frames, 0 where hidden; channels-last in memory."""
    batch, height, width = frames
    empty = rows.new_zeros(batch * height * width, rows.shape[1])
    return empty.index_copy_(0, canvas, rows).view(batch, height, width, -1).permute(0, 3, 1, 2)


def as_matrix(
    weight: Float[Tensor, "outputs channels kernel_height kernel_width"],
) -> Float[Tensor, "outputs taps_channels"]:
    """A convolution's weight as that of a linear layer; a view where it is channels-last in memory."""
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _depthwise(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    table: Tensor,
    canvas: Tensor | None,
    frames: tuple[int, int, int],
) -> Tensor:
    groups = rows.shape[1]
    if kernels.usable(rows):
        return kernels.depthwise(rows, weight, bias, table)
    if canvas is not None:
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        convolved = F.conv2d(as_frames(rows, canvas, frames), weight, bias, padding=padding, groups=groups)
        return as_rows(convolved).index_select(0, canvas)
    windows = _with_sentinel(rows).index_select(0, table.flatten()).view(*table.shape, -1).permute(0, 3, 1, 2)
    return as_rows(F.conv2d(windows, weight, bias, groups=groups))


def _depthwise_weight_gradient(rows: Tensor, gradient: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    if kernels.usable(rows):
        return kernels.depthwise_weight_gradient(rows, gradient, weight, table)
    blocks, height, width = table.shape
    channels, size = rows.shape[1], math.isqrt(len(rows) // blocks)
    rows = _with_sentinel(rows)
    if size == 1:  # tap by tap: what it reads stays in the cache
        taps = [(rows.index_select(0, tap) * gradient).sum(dim=0) for tap in table.flatten(1).unbind(dim=1)]
        return torch.stack(taps, dim=1).view_as(weight)
    # Each channel of each block becomes a channel of one image, its gradient the kernel, their sum the weight's. A few
    # blocks at a time: from pixel to pixel of a wider image would be a leap across memory.
    each = gradient.view(blocks, size * size, channels).transpose(1, 2).reshape(blocks, channels, 1, size, size)
    parts = []
    for some, kernels_of in zip(torch.split(table, 24), torch.split(each, 24), strict=True):
        windows = rows.index_select(0, some.permute(1, 2, 0).flatten()).view(1, height, width, -1).permute(0, 3, 1, 2)
        products = as_rows(F.conv2d(windows, kernels_of.flatten(0, 1), groups=windows.shape[1]))
        parts.append(products.view(len(products), -1, channels).sum(dim=1))
    return torch.stack(parts).sum(dim=0).t().reshape(weight.shape)


def _columns(rows: Tensor, table: Tensor) -> Tensor:
    """`[out_positions, taps * channels]`: what each output position sees."""
    return _with_sentinel(rows).index_select(0, table.flatten()).view(len(table), -1)


def _with_sentinel(rows: Tensor, fill: float = 0.0) -> Tensor:
    """One more row, which stands for everything hidden and for what lies outside the frame."""
    return F.pad(rows, (0, 0, 0, 1), value=fill)


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
