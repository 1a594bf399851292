"""What every kind of video keeps to: numbers that are checked, and a cheap way into other processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tests.data.sample_videos import any_video
from videomac.data.video import Video


@pytest.mark.parametrize("make", ["file", "folder", "memory"])
def test_frame_numbers_are_checked(tmp_path: Path, make: str) -> None:
    video = any_video(tmp_path, make)
    for bad in ([-1], [0, 12], [12]):
        with pytest.raises(IndexError, match=str(bad[-1])):
            video.read(bad)
    with pytest.raises(ValueError, match="no frames"):
        video.read([])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_videos_are_cheap_to_pickle(tmp_path: Path, kind: str) -> None:
    video = any_video(tmp_path, kind)
    expected = video.read([3, 4])
    state = pickle.dumps(video)
    assert len(state) < 600
    assert torch.equal(pickle.loads(state).read([3, 4]), expected)


def checksum(video: Video, indices: list[int]) -> int:
    return int(video.read(indices).long().sum())


@pytest.mark.parametrize(
    ("kind", "method"), [("file", "fork"), ("folder", "fork"), ("memory", "fork"), ("memory", "spawn")]
)
def test_videos_can_be_read_in_other_processes(tmp_path: Path, kind: str, method: str) -> None:
    video = any_video(tmp_path, kind)
    context = torch.multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        assert pool.apply(checksum, (video, [3, 7])) == checksum(video, [3, 7])
