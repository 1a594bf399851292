"""Label propagation reads nothing back from the device: it runs on `meta`, whose tensors hold nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from videomac.evaluate import propagation


@pytest.mark.parametrize("window", ["square", "disc"])
@pytest.mark.parametrize("radius", [3, None])
def test_propagation_reads_nothing_back(window: Any, radius: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one question, whether the last that votes and the first that does not are equally similar."""

    def largest(values: Tensor, count: int) -> Tensor:
        return values.topk(count, dim=-1).indices

    monkeypatch.setattr(propagation, "_largest", largest)
    result = propagation.propagate(
        torch.empty(6, 8, 9, 11, device="meta"),
        torch.empty(3, 9, 11, device="meta"),
        context_frames=3, topk=5, radius=radius, temperature=0.1, window=window,
    )  # fmt: skip
    assert result.is_meta
    assert result.shape == (6, 3, 9, 11)
