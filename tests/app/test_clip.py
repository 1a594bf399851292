"""The clip that is open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomac.app.clip import Clip
from videomac.errors import UserError


@pytest.mark.parametrize("name", ["labels.csv", "clip", "../../x", "clip.mp4.html", ".mp4/x"])
def test_what_is_no_video_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UserError, match="is no video: choose a file such as"):
        Clip.suffix_of(name)


def test_frames_are_those_of_the_video_in_any_order(video: Path) -> None:
    clip = Clip(video, video.name)
    frames = clip.video.read(range(len(clip)))
    for number in (11, 0, 5):
        assert torch.equal(clip.frame(number), frames[number])


def test_frames_that_are_kept_are_few(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videomac.app.clip.MOST_BYTES", 1)
    monkeypatch.setattr("videomac.app.clip.AT_ONCE", 4)
    clip = Clip(video, video.name)
    for number in range(len(clip)):
        clip.frame(number)
    assert len(clip._frames) == 4


def test_a_broken_file_is_named_as_the_browser_named_it(tmp_path: Path) -> None:
    path = tmp_path / "clip1.mp4"
    path.write_bytes(b"no video at all" * 99)
    with pytest.raises(UserError, match=r"holiday\.mp4 cannot be read") as caught:
        Clip.uploaded(path, "holiday.mp4")
    assert str(tmp_path) not in str(caught.value) and "clip1" not in str(caught.value)
