"""Nothing is read back from the device: a whole step with networks and frames on `meta`, whose tensors hold nothing.

Whatever would wait for a GPU (`.item()`, `.tolist()`, `nonzero`, a comparison that decides) fails there.
"""

from __future__ import annotations

import pytest
import torch

from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC


@pytest.fixture(autouse=True)
def _autocast_knows_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type="cpu": False)


@pytest.mark.parametrize("prepared", [False, True], ids=["mask", "prepared"])
@pytest.mark.parametrize("name", ["convnextv2_atto", "resnet18", "mobilenetv3_large_100", "regnety_004", "densenet121"])
def test_a_whole_step_reads_nothing_back(name: str, prepared: bool) -> None:
    model = VideoMAC(name, decoder_width=32, target_gradient=prepared, symmetric=not prepared)
    mask = model.sample_mask(4, (96, 128))
    model = model.to("meta")
    pair = torch.empty(4, 2, 3, 96, 128, device="meta")
    optimizer = torch.optim.AdamW(model.online.parameters(), fused=False, foreach=True)
    output = model(pair, model.prepare(mask, pair.device) if prepared else mask)
    output.loss.backward()
    optimizer.step()
    model.update_target(0.99)
    assert output.loss.is_meta and output.mask.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in model.online.parameters() if p.requires_grad)


def test_a_mask_on_the_device_is_noticed() -> None:
    """The test above would notice: a mask on the device must be read."""
    encoder = SparseEncoder("resnet18").to("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        encoder(torch.empty(2, 3, 96, 96, device="meta"), random_mask(2, (3, 3)).to("meta"))
