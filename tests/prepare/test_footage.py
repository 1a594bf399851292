"""Footage is read to its end, or to the damage, and what was wrong is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tests.data.sample_videos import encode
from videomac.data.frame_folder import FrameFolder
from videomac.data.video_file import VideoFile
from videomac.prepare.encode import Shrinker
from videomac.prepare.footage import Footage


@pytest.mark.parametrize("name", ["two.mp4", "deep/large.mkv", "pictures"])
def test_every_frame_comes_in_order(raw: Path, name: str) -> None:
    video = FrameFolder(raw / name) if (raw / name).is_dir() else VideoFile(raw / name)
    read = Footage(raw / name)
    shown = list(read)
    assert len(shown) == len(video) and read.problem is None and float(read.rate) == video.fps
    assert [one.seconds for one in shown] == pytest.approx([n / video.fps for n in range(len(video))], abs=2e-3)
    for number in (0, len(video) // 2, len(video) - 1):
        picture = shown[number].frame.to_ndarray(format="rgb24").astype(int)
        difference = picture - video.read([number])[0].permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 2
    assert not any(one.after_gap for one in shown)


@pytest.mark.parametrize(("name", "problem"), [("broken.mp4", "Invalid data"), ("half.mp4", "is truncated: the last")])
def test_what_is_wrong_is_told(raw: Path, name: str, problem: str) -> None:
    read = Footage(raw / name)
    shown = list(read)
    assert read.problem is not None and read.problem.startswith(problem) and not read.passing
    assert len(shown) < 60 and bool(shown) == (name == "half.mp4")


def test_damage_in_the_middle_is_a_gap_up_to_the_next_key_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", 60, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    whole = list(Footage(path))
    import av

    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    start, size = packets[23]
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    read = Footage(path)
    shown = list(read)
    assert read.problem is not None and not read.passing
    # The six intact groups around it are there, and a new shot begins behind the damage.
    times = [round(one.seconds, 3) for one in shown]
    assert set(times) >= {round(one.seconds, 3) for number, one in enumerate(whole) if number < 23 or number >= 30}
    assert [round(one.seconds, 3) for one in shown if one.after_gap] == [round(whole[30].seconds, 3)]


def test_turned_footage_comes_upright(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", 3, size=(48, 64), rotation=90)
    (first, *_), expected = list(Footage(path)), VideoFile(path).read([0])[0]
    small = Shrinker()(first).frame
    assert (small.height, small.width) == tuple(expected.shape[1:]) == (64, 48)
    difference = small.to_ndarray(format="rgb24").astype(int) - expected.permute(1, 2, 0).numpy()
    assert np.abs(difference).mean() < 6


def test_a_disk_that_does_not_answer_may_answer_later(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("videomac.data.video_file.av.open", fail)
    read = Footage(raw / "two.mp4")
    assert list(read) == [] and read.passing and read.problem == os.strerror(errno.EIO)
