"""A made-up video of ten frames, two figures and fifteen joints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomac.evaluate import synthetic
from videomac.utils.video_writer import write_frames


@pytest.fixture(scope="session")
def scene() -> synthetic.Scene:
    return synthetic.scene(10, (64, 96), seed=4)


@pytest.fixture(scope="session")
def folder(scene: synthetic.Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video as a folder of frames."""
    path = tmp_path_factory.mktemp("labeling") / "walk"
    write_frames(path, torch.from_numpy(scene.frames).permute(0, 3, 1, 2))
    return path
