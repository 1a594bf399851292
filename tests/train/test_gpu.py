"""What only a GPU can show: a step waits for nothing, and bfloat16 is float32 but for rounding."""

from __future__ import annotations

import pytest
import torch

from videomac.train.config import PretrainConfig
from videomac.train.optim import adamw, parameter_groups, refuse_unless_finite
from videomac.train.pretrain import build_model
from videomac.utils.device import autocast

pytestmark = pytest.mark.gpu
NETWORKS = ["convnextv2_atto", "resnet18", "mobilenetv3_large_100"]


def built(backbone: str, precision: str):
    config = PretrainConfig("clips", backbone, "out", decoder_width=64, image_size=128, precision=precision)
    model = build_model(config).cuda()
    return model, adamw(parameter_groups(model, config.weight_decay), config)


def batch(model, pairs: int = 8):
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(pairs, 2, 3, 128, 128, generator=generator).cuda()
    return pair, model.prepare(model.sample_mask(pairs, (128, 128), generator), pair.device)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("backbone", NETWORKS)
def test_a_step_does_not_wait_for_the_device(backbone: str, precision: str) -> None:
    model, optimizer = built(backbone, precision)
    pair, prepared = batch(model)
    refused = None
    for step in range(3):
        torch.cuda.set_sync_debug_mode("error" if step == 2 else "default")  # the first steps compile and allocate
        try:
            optimizer.zero_grad()
            with autocast(precision, pair.device):
                loss = model(pair, prepared).loss
            loss.backward()
            refused = refuse_unless_finite(optimizer, loss.detach(), refused)
            optimizer.step()
            model.update_target(0.99)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert refused.item() == 0


@pytest.mark.parametrize("backbone", NETWORKS)
def test_bfloat16_is_float32_but_for_rounding(backbone: str) -> None:
    losses, gradients = [], []
    for precision in ("32-true", "bf16-mixed"):
        model, _ = built(backbone, precision)
        pair, prepared = batch(model)
        with autocast(precision, pair.device):
            loss = model(pair, prepared).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.97


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    model, optimizer = built("resnet18", "32-true")
    pair, prepared = batch(model)
    before = [p.detach().clone() for p in model.online.parameters()]
    loss = model(pair * float("inf"), prepared).loss
    loss.backward()
    assert refuse_unless_finite(optimizer, loss.detach(), None).item() == 1
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.online.parameters(), strict=True))
