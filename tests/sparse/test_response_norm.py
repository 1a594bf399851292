"""Global response normalisation by hand: timm's layer on each sample's positions, and autograd's derivative of it."""

from __future__ import annotations

import pytest
import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor

from videomac.sparse.functional import ResponseNorm


def both(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients: ours, and timm's."""
    layer = GlobalResponseNorm(x.shape[-1]).to(x.dtype)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    handed = torch.randn_like(x)
    ours = ResponseNorm.apply(x, layer.weight, layer.bias, layer.eps)
    timms = layer(x.unsqueeze(2)).squeeze(2)  # a tall image, one position wide
    leaves = [x, *layer.parameters()]
    return tuple([out, *torch.autograd.grad(out, leaves, handed)] for out in (ours, timms))  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 3), (4, 48, 16)])
def test_equals_timms_layer(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for ours, timms in zip(*both(torch.randn(shape, dtype=torch.float64, requires_grad=True)), strict=True):
        torch.testing.assert_close(ours, timms, rtol=1e-12, atol=1e-12)


def test_a_channel_of_zeros_has_a_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    x[0, :, 3] = 0
    for ours, timms in zip(*both(x.requires_grad_()), strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, timms, rtol=1e-12, atol=1e-12)


def test_half_precision_takes_its_norms_in_float32() -> None:
    """The squares of these values are beyond float16."""
    torch.manual_seed(0)
    x = (400 * torch.randn(2, 512, 8)).half()
    weight, bias = torch.randn(8), torch.randn(8)
    exact = ResponseNorm.apply(x.float(), weight, bias, 1e-6)
    half = ResponseNorm.apply(x, weight, bias, 1e-6)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=5e-3, atol=0.5)
