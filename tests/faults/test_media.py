"""Damaged videos, pictures, masks and joints: what is left of them, or one sentence."""

from __future__ import annotations

import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.sample_videos import encode
from tests.faults.mutate import LIMIT, damaged, summary
from tests.faults.test_options import time_limit
from videomac.data.frame_folder import FrameFolder
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.evaluate.benchmarks.jhmdb import read_joints, write_joints
from videomac.evaluate.images import picture_size, read_frame, read_ids, write_ids

pytestmark = pytest.mark.filterwarnings("ignore")  # what Pillow says of a damaged picture
VIDEOS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mov": ("mpeg4", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".webm": ("libvpx", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".ts": ("mpeg2video", "yuv420p"),
    ".mpg": ("mpeg2video", "yuv420p"),
    ".flv": ("flv", "yuv420p"),
    ".wmv": ("wmv2", "yuv420p"),
    ".gif": ("gif", "rgb8"),
}
STILLS = (".jpg", ".png", ".webp", ".bmp")
Reader = Callable[[Path], object]


def read_video(path: Path) -> None:
    video = VideoFile(path)
    for number in {0, len(video) // 2, len(video) - 1}:
        frames = video.read([number])
        assert frames.ndim == 4 and frames.shape[:2] == (1, 3)


def read_folder(path: Path) -> None:
    folder = path.with_name("frames")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(path, folder / path.name)
    assert FrameFolder(folder).read([0]).shape[:2] == (1, 3)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Reader]]:
    """A small whole file of each kind, and what reads it."""
    folder = tmp_path_factory.mktemp("whole")
    found: list[tuple[Path, Reader]] = []
    for suffix, (codec, pix_fmt) in VIDEOS.items():
        found.append((encode(folder / f"clip{suffix}", 12, codec=codec, pix_fmt=pix_fmt), read_video))
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for suffix in STILLS:
        path = folder / f"0{suffix}"
        Image.fromarray(picture).save(path)
        found += [(path, read_folder), (path, read_frame), (path, picture_size)]
    write_ids(folder / "ids.png", picture[..., 0] // 64)
    write_joints(folder / "joint_positions.mat", np.ones((4, 15, 2)))
    return [*found, (folder / "ids.png", read_ids), (folder / "joint_positions.mat", read_joints)]


def try_many(seed: int, count: int, samples: list[tuple[Path, Reader]], folder: Path) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        whole, read = samples[number % len(samples)]
        path = folder / whole.name
        path.write_bytes(damaged(whole.read_bytes(), draw))
        try:
            with time_limit(LIMIT):
                read(path)
            counts["read"] += 1
        except (VideoError, UserError) as error:
            counts["refused"] += 1
            if "\n" in str(error) or path.name not in str(error):
                failures.append(f"case {number}: {error}")
        except BaseException:
            failures.append(f"case {number}, {whole.name}: {traceback.format_exc()[-1500:]}")
    return counts, failures


def test_some_damaged_media(samples: list[tuple[Path, Reader]], tmp_path: Path) -> None:
    counts, failures = try_many(0, 8 * len(samples), samples, tmp_path)
    assert not failures, "\n".join(failures[:5])
    assert min(counts["read"], counts["refused"]) > 10


@pytest.mark.faults
def test_thousands_of_damaged_media(samples: list[tuple[Path, Reader]], tmp_path: Path, seed: int) -> None:
    counts, failures = try_many(seed + 1, 2000, samples, tmp_path)
    print(summary("media", counts, failures))
    assert not failures, "\n".join(failures[:20])
