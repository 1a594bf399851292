"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before the first import of Triton: our kernels are then run on the CPU, slowly
    os.environ.setdefault("TRITON_INTERPRET", "1")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU are skipped where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real video and ground truth beside the checkout; tests that need it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four short made-up videos: three files and a folder of frames, 24 frames each."""
    from videomac.data.synthetic import moving_shapes
    from videomac.utils.video_writer import write_frames, write_video

    folder = tmp_path_factory.mktemp("clips")
    for number in range(3):
        write_video(folder / f"clip{number}.mp4", moving_shapes(24, (72, 96), seed=number)[0])
    write_frames(folder / "clip3", moving_shapes(24, (72, 96), seed=3)[0])
    return folder


@pytest.fixture(scope="session")
def small_run(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The out folder of a pre-training on `clips`, for all who need one and leave it as it is."""
    import videomac
    from tests.train.runs import options

    out = tmp_path_factory.mktemp("runs") / "run"
    videomac.pretrain(**options(clips, out, gamma=0.5, keep_epochs=1))
    return out
