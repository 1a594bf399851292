"""A small clip, and sessions that look at it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomac.app.backbones import Backbones
from videomac.app.session import Sessions
from videomac.data.synthetic import moving_shapes
from videomac.utils.video_writer import write_video

FRAMES, SIZE = 12, (64, 96)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "shapes.mp4"
    write_video(path, moving_shapes(FRAMES, SIZE, num_objects=2, seed=5)[0], 12)
    return path


@pytest.fixture(scope="session")
def backbones() -> Backbones:
    return Backbones(["raw-pixels"], torch.device("cpu"))


@pytest.fixture
def sessions(tmp_path: Path, video: Path, backbones: Backbones) -> Sessions:
    return Sessions(tmp_path / "root", backbones, video)
