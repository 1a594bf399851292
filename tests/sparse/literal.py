"""The meaning of a masked ConvNet, written out literally and apart from the engine.

A plain timm network runs on whole frames, unmodified, and every *function* that mixes positions is caught on its way
into PyTorch and given its meaning: to convolutions and average pooling a hidden cell is 0, to max pooling it is minus
infinity, and statistics are taken over visible cells by picking those out, sample by sample. The engine works on
modules and on blocks; nothing is shared with it. Functions that are not in the table act on each position alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def literal_features(network: nn.Module, frames: Tensor, mask: Tensor) -> Tensor:
    """`forward_features` of a plain network on masked frames; exactly 0 where hidden."""
    with Literal(mask):
        features = network.forward_features(hidden_as(frames, mask, 0.0))
    return hidden_as(features, mask, 0.0)


def hidden_as(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """The map `[B, C, h, w]` with its hidden cells set."""
    rows, columns = mask.shape[1:]
    cells = mask.repeat_interleave(x.shape[2] // rows, 1).repeat_interleave(x.shape[3] // columns, 2)
    return torch.where(cells[:, None], value, x)


class Literal(TorchFunctionMode):
    """Gives the functions in its table their meaning under a mask `[B, rows, columns]`, True = hidden."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        meaning: Callable[..., Any] | None = getattr(self, f"on_{getattr(function, '__name__', '')}", None)
        if meaning is None or not isinstance(args[0], Tensor) or args[0].ndim != 4:
            return function(*args, **kwargs)
        return meaning(function, *args, **kwargs)

    def is_map(self, height: int, width: int) -> bool:
        rows, columns = self.mask.shape[1:]
        return height % rows == 0 and width % columns == 0 and height // rows == width // columns

    def visible(self, height: int, width: int) -> Tensor:
        everywhere = torch.ones(len(self.mask), 1, height, width)
        return hidden_as(everywhere, self.mask, 0.0)[:, 0].bool()

    # Functions with a kernel. A map that was padded before has been cleaned in on_pad and no longer fits the grid.

    def on_conv2d(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(self.clean(x, 0.0), *args, **kwargs)

    def on_avg_pool2d(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return function(self.clean(x, 0.0), *args, **kwargs)

    def on_max_pool2d(self, function: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Windows without any visible cell give minus infinity in hidden places, where it would become NaN further on.
        return function(self.clean(x, float("-inf")), *args, **kwargs).clamp(min=-1e30)

    on_boolean_dispatch = on_max_pool2d

    def on_pad(self, function: Any, x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
        return function(self.clean(x, value or 0.0), pad, mode, value)

    def clean(self, x: Tensor, value: float) -> Tensor:
        return hidden_as(x, self.mask, value) if self.is_map(*x.shape[2:]) else x

    # Functions with statistics over positions.

    def on_batch_norm(
        self,
        function: Any,
        x: Tensor,
        mean: Any,
        var: Any,
        weight: Any,
        bias: Any,
        training: bool,
        momentum: Any,
        eps: Any,
    ) -> Tensor:
        if not training:
            return function(x, mean, var, weight, bias, training, momentum, eps)
        cells = x.permute(0, 2, 3, 1)[self.visible(*x.shape[2:])]  # [visible cells of the batch, C]
        if mean is not None:
            with torch.no_grad():
                mean.lerp_(cells.mean(0), momentum)
                var.lerp_(cells.var(0, unbiased=True), momentum)
        centre, spread = cells.mean(0), (cells.var(0, unbiased=False) + eps).sqrt()
        normal = (x.permute(0, 2, 3, 1) - centre) / spread * weight + bias
        return normal.permute(0, 3, 1, 2)

    def on_group_norm(
        self, function: Any, x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        def normalise(image: Tensor, visible: Tensor) -> Tensor:  # [C, h, w], [h, w]
            parts = []
            for part in image.chunk(groups):
                cells = part[:, visible]
                parts.append((part - cells.mean()) / (cells.var(unbiased=False) + eps).sqrt())
            return torch.cat(parts) * weight[:, None, None] + bias[:, None, None]

        return torch.stack([normalise(*pair) for pair in zip(x, self.visible(*x.shape[2:]), strict=True)])

    def on_mean(self, function: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        if dim != (2, 3) or not self.is_map(*x.shape[2:]):
            return function(x, dim, keepdim)
        visible = self.visible(*x.shape[2:])
        means = torch.stack([image[:, seen].mean(1) for image, seen in zip(x, visible, strict=True)])
        return means[:, :, None, None] if keepdim else means

    def on_norm(self, function: Any, x: Tensor, p: int, dim: Any, keepdim: bool, dtype: None) -> Tensor:
        assert p == 2 and keepdim and dtype is None
        if dim == (1, 2):  # GRN with channels last
            return self.on_norm(function, x.permute(0, 3, 1, 2), p, (2, 3), keepdim, dtype).permute(0, 2, 3, 1)
        visible = self.visible(*x.shape[2:])
        norms = torch.stack([(image[:, seen] ** 2).sum(1).sqrt() for image, seen in zip(x, visible, strict=True)])
        return norms[:, :, None, None]
