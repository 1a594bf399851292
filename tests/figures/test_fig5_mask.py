"""Fig. 5: its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomac.figures import fig5_mask
from videomac.figures.config import FiguresConfig
from videomac.inspection import mask_dissipation
from videomac.models.videomac import VideoMAC


def test_the_data_of_figure_5_are_its_maps() -> None:
    _, data = mask_dissipation.figure("test_convnext", (64, 96), 0.75)
    hidden = data["mask"]
    assert hidden.shape == (2, 3)
    for name, values in data.items():
        if name.startswith("sparse_"):
            scale = (values.shape[0] // 2, values.shape[1] // 3)
            assert (values[np.kron(hidden, np.ones(scale, dtype=bool))] == 0).all()
    assert (data["dense_stages.3"] > 0).all(), "dissolved"


@pytest.mark.parametrize(
    ("settings", "stride", "patch"),
    [
        ({"output_stride": 16}, 16, 32),
        ({"output_stride": 8, "patch_size": 16}, 8, 16),
        ({"patch_size": 64, "backbone_args": {"depths": [1, 1, 1, 1]}}, 32, 64),
    ],
)
def test_figure_5_shows_a_runs_own_network_stride_and_patches(
    settings: dict[str, Any], stride: int, patch: int, tmp_path: Path
) -> None:
    model = VideoMAC("test_convnext", decoder_width=8, **settings)
    said = fig5_mask.draw(FiguresConfig([tmp_path], tmp_path, image_size=128), model).sentence
    assert said == f"the mask in a dense and in our network of stride {stride}, after each stage"
    with np.load(tmp_path / "fig5.npz") as data:
        assert data["mask"].shape == (128 // patch, 128 // patch)
        assert data["sparse_stages.3"].shape == data["dense_stages.3"].shape == (128 // stride, 128 // stride)
        hidden = np.kron(data["mask"], np.ones((patch // stride, patch // stride), dtype=bool))
        assert np.array_equal(data["sparse_stages.3"] == 0, hidden)
    drawn = (tmp_path / "fig5.svg").read_text(encoding="utf-8")
    assert f"test_convnext, stride {stride}: where what the visible patches of {patch} pixels hold" in drawn


def test_figure_5_of_a_frame_of_one_patch_has_more_than_that(tmp_path: Path) -> None:
    model = VideoMAC("test_convnext", decoder_width=8)
    fig5_mask.draw(FiguresConfig([tmp_path], tmp_path, image_size=32), model)
    with np.load(tmp_path / "fig5.npz") as data:
        assert data["mask"].sum() == 3
