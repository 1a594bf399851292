"""Global response normalisation (ConvNeXt V2) in the fewest passes over memory.

All of it comes to one scale a sample and channel, forward and backward; autograd would read and write the map, which is
the widest of the network, twice as often.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class ResponseNorm(torch.autograd.Function):
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
