from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.prepared_clips import write_prepared
from tests.train.runs import options
from videomac.data import order
from videomac.models.videomac import VideoMAC
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData


@pytest.mark.parametrize(("batch", "together"), [(4, 1), (8, order.TOGETHER)])
def test_large_batches_of_prepared_clips_take_two_pairs_of_a_group_and_small_ones_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, together: int
) -> None:
    monkeypatch.setattr(order, "LARGE_BATCH", 8)
    write_prepared(tmp_path / "clips")
    config = PretrainConfig(**options(tmp_path / "clips", tmp_path / "out", global_batch_size=batch))
    data = PretrainingData(config, VideoMAC("test_convnext", decoder_width=16))
    assert data._order is not None
    assert data._order.together == together
