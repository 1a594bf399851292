"""Videos decoded once into shared memory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tests.data.sample_videos import encode
from videomac.data.cache import MemoryVideo, cache_in_memory
from videomac.data.discovery import find_videos
from videomac.data.frame_folder import FrameFolder
from videomac.data.synthetic import moving_shapes
from videomac.data.video_file import VideoFile
from videomac.utils.video_writer import write_frames


def test_memory_holds_the_same_frames(tmp_path: Path) -> None:
    for number in range(3):
        encode(tmp_path / f"{number}.mp4", num_frames=70 + number)
    videos = find_videos(tmp_path)
    cached = cache_in_memory(videos, gib=0.1)
    assert all(isinstance(video, MemoryVideo) for video in cached)
    for before, after in zip(videos, cached, strict=True):
        assert (after.name, after.fps, len(after)) == (before.name, before.fps, len(before))
        everything = before.read(range(len(before)))
        assert torch.equal(after.read(range(len(after))), everything)
        assert torch.equal(after.read([69, 3]), everything[[69, 3]])
        assert after.pixels.is_shared()
    copy = cached[0].read([0])
    copy.zero_()
    assert cached[0].read([0]).max() > 0


def test_memory_is_limited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        encode(tmp_path / f"{number}.mp4", num_frames=20)
    videos = find_videos(tmp_path)
    each = 20 * 3 * 48 * 64
    cached = cache_in_memory(videos, gib=2.5 * each / 2**30)
    assert [type(video) for video in cached] == [MemoryVideo, MemoryVideo, VideoFile, VideoFile]
    assert cached[2:] == videos[2:]
    assert "the first 2 of 4 videos are kept in memory: the rest does not fit" in caplog.text
    # Small ones share their memory.
    cached = cache_in_memory(videos, gib=100 * each / 2**30)
    assert len({video.pixels.untyped_storage().data_ptr() for video in cached}) == 1  # type: ignore[attr-defined]


def test_memory_shrinks_only_what_is_larger(tmp_path: Path) -> None:
    video = VideoFile(encode(tmp_path / "a.mp4", num_frames=5))
    (small,) = cache_in_memory([video], gib=0.1, short_side=24)
    (same,) = cache_in_memory([video], gib=0.1, short_side=100)
    assert small.read([4]).shape == (1, 3, 24, 32)
    assert torch.equal(same.read([4]), video.read([4]))


def test_memory_leaves_damaged_videos_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frames(tmp_path / "a", moving_shapes(4, (40, 48))[0])
    write_frames(tmp_path / "b", moving_shapes(4, (40, 48))[0])
    (tmp_path / "a" / "00002.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        cached = cache_in_memory(find_videos(tmp_path), gib=0.1)
    assert [type(video) for video in cached] == [FrameFolder, MemoryVideo]
    assert caplog.text.count("not kept in memory") == 1 and "00002.png" in caplog.text
