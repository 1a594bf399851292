"""Fused kernels for CUDA, in Triton: a depthwise convolution that reads its halo through the window table.

In PyTorch's own operations the windows of a 7x7 kernel must first be copied (at P = 8 three times the data, at P = 1
forty-nine times); here each output position fetches its neighbours where they are. Sums are kept in float32 and written
once, each by one program, so two runs give the same bits. Triton comes with PyTorch where there is CUDA on Linux; set
TRITON_INTERPRET=1 before the first import to run the kernels on the CPU, slowly, as the tests do.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
except ImportError:  # PyTorch without CUDA, or not on Linux
    triton = None


# What one program computes: so many positions of so many channels.
POSITIONS = 64
CHANNELS = 32
# A weight's gradient is the sum of at most so many parts.
MOST_SPLITS = 512
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels take; they sum in float32."""


def usable(tensor: Tensor) -> bool:
    """Whether the kernels are made for this tensor; `functional.use_kernels` asks whether they work, too."""
    return triton is not None and tensor.is_cuda and tensor.dtype in DTYPES


def depthwise(
    rows: Float[Tensor, "positions channels"],
    weight: Float[Tensor, "channels 1 kernel_height kernel_width"],
    bias: Float[Tensor, " channels"] | None,
    table: Int[Tensor, "blocks window_height window_width"],
    turned: bool = False,
    dilation: int = 1,
) -> Float[Tensor, "positions channels"]:
    """Depthwise convolution of stride 1 of all blocks.

    Args:
        rows: all positions of all blocks.
        weight: one kernel a channel.
        bias: one value a channel, or None.
        table: which row each position of each window is (`Blocks.window_table`); `positions` stands for 0.
        turned: turn the kernel round by half a turn, as the input's gradient needs it.
        dilation: how far apart taps lie, both ways.
    """
    positions, channels = rows.shape
    rows, taps = rows.contiguous(), weight.flatten(1).t().contiguous()
    result = torch.empty_like(rows)
    grid = (triton.cdiv(positions, POSITIONS), triton.cdiv(channels, CHANNELS))
    _depthwise_kernel[grid](
        rows, taps, taps if bias is None else bias, table, result, positions, channels,
        **_shape(weight, table, dilation), HAS_BIAS=bias is not None, TURNED=turned,
        POSITIONS=POSITIONS, CHANNELS=CHANNELS,
    )  # fmt: skip
    return result


def depthwise_weight_gradient(
    rows: Float[Tensor, "positions channels"],
    gradient: Float[Tensor, "positions channels"],
    weight: Float[Tensor, "channels 1 kernel_height kernel_width"],
    table: Int[Tensor, "blocks window_height window_width"],
    dilation: int = 1,
) -> Float[Tensor, "channels 1 kernel_height kernel_width"]:
    """Gradient of the weight, given that of the output.

    Args:
        rows: as in `depthwise`.
        gradient: of the output.
        weight: for its shape.
        table: as in `depthwise`.
        dilation: as in `depthwise`.

    Returns:
        In float32.
    """
    positions, channels = rows.shape
    rows, gradient = rows.contiguous(), gradient.contiguous()
    taps = weight[0].numel()
    # Each part sums over so many positions that all parts together take no more memory than `rows` and `gradient`.
    splits = min(MOST_SPLITS, triton.cdiv(positions, max(POSITIONS, 2 * taps)))
    partial = rows.new_empty(splits, taps, channels, dtype=torch.float32)
    grid = (splits, triton.cdiv(channels, CHANNELS))
    _weight_gradient_kernel[grid](
        rows, gradient, table, partial, positions, channels, triton.cdiv(positions, splits),
        **_shape(weight, table, dilation), TAPS=triton.next_power_of_2(taps), CHANNELS=CHANNELS,
    )  # fmt: skip
    return partial.sum(dim=0).t().reshape(weight.shape)


def _shape(weight: Tensor, table: Tensor, dilation: int) -> dict[str, int]:
    """What the kernels are compiled for: they find a position's window by dividing by these."""
    (window_height, window_width), (high, wide) = table.shape[1:], weight.shape[2:]
    return {
        "P": window_height - dilation * (high - 1), "HIGH": high, "WIDE": wide, "DILATION": dilation,
        "WINDOW_HEIGHT": window_height, "WINDOW_WIDTH": window_width,
    }  # fmt: skip


if triton is not None:
    # (Triton looks every annotation up when it compiles: it must be one that Triton knows.)

    @triton.jit  # type: ignore[untyped-decorator]
    def _depthwise_kernel(
        rows: tl.tensor, taps: tl.tensor, bias: tl.tensor, table: tl.tensor, result: tl.tensor,
        positions: tl.tensor, channels: tl.tensor,
        P: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, DILATION: tl.constexpr,
        WINDOW_HEIGHT: tl.constexpr, WINDOW_WIDTH: tl.constexpr,
        HAS_BIAS: tl.constexpr, TURNED: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
    ) -> None:  # fmt: skip
        position = tl.program_id(0) * POSITIONS + tl.arange(0, POSITIONS)
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        inside, known = position < positions, channel < channels
        block, cell = position // (P * P), position % (P * P)
        corner = (block * WINDOW_HEIGHT + cell // P) * WINDOW_WIDTH + cell % P
        total = tl.zeros((POSITIONS, CHANNELS), dtype=tl.float32)
        for down in range(HIGH):
            for along in range(WIDE):
                offset = (down * WINDOW_WIDTH + along) * DILATION
                row = tl.load(table + corner + offset, mask=inside, other=positions)
                seen = (row < positions)[:, None] & known[None, :]
                values = tl.load(rows + row.to(tl.int64)[:, None] * channels + channel[None, :], mask=seen, other=0.0)
                tap = down * WIDE + along
                if TURNED:
                    tap = HIGH * WIDE - 1 - tap
                factor = tl.load(taps + tap * channels + channel, mask=known, other=0.0)
                total += values.to(tl.float32) * factor.to(tl.float32)[None, :]
        if HAS_BIAS:
            total += tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
        where = position.to(tl.int64)[:, None] * channels + channel[None, :]
        tl.store(result + where, total.to(result.dtype.element_ty), mask=inside[:, None] & known[None, :])

    @triton.jit  # type: ignore[untyped-decorator]
    def _weight_gradient_kernel(
        rows: tl.tensor, gradient: tl.tensor, table: tl.tensor, partial: tl.tensor,
        positions: tl.tensor, channels: tl.tensor, share: tl.tensor,
        P: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, DILATION: tl.constexpr,
        WINDOW_HEIGHT: tl.constexpr, WINDOW_WIDTH: tl.constexpr,
        TAPS: tl.constexpr, CHANNELS: tl.constexpr,
    ) -> None:  # fmt: skip
        split = tl.program_id(0)
        channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
        tap = tl.arange(0, TAPS)
        known, real = channel < channels, tap < HIGH * WIDE
        offset = ((tap // WIDE) * WINDOW_WIDTH + tap % WIDE) * DILATION
        here = gradient + (split * share).to(tl.int64) * channels + channel
        total = tl.zeros((TAPS, CHANNELS), dtype=tl.float32)
        for position in range(split * share, tl.minimum(split * share + share, positions)):
            block, cell = position // (P * P), position % (P * P)
            corner = (block * WINDOW_HEIGHT + cell // P) * WINDOW_WIDTH + cell % P
            row = tl.load(table + corner + offset, mask=real, other=positions)
            seen = (row < positions)[:, None] & known[None, :]
            values = tl.load(rows + row.to(tl.int64)[:, None] * channels + channel[None, :], mask=seen, other=0.0)
            factor = tl.load(here, mask=known, other=0.0)
            total += values.to(tl.float32) * factor.to(tl.float32)[None, :]
            here += channels
        where = (split * HIGH * WIDE + tap[:, None]) * channels + channel[None, :]
        tl.store(partial + where, total, mask=real[:, None] & known[None, :])
