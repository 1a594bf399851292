"""Frames and index masks on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomac.data.frame_folder import FrameFolder
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.evaluate.images import PALETTE, numbered_files, picture_size, read_frame, read_ids, write_ids


def test_frames_come_in_the_order_in_which_training_takes_them(tmp_path: Path) -> None:
    for number in (10, 2, 1, 100, 9):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / ".3.png").write_bytes(b"")
    (tmp_path / "4.txt").write_text("no picture")
    ours = [int(read_frame(path)[0, 0, 0]) for path in numbered_files(tmp_path, (".png",))]
    assert ours == FrameFolder(tmp_path).read(range(5))[:, 0, 0, 0].tolist() == [1, 2, 9, 10, 100]


def test_ids_survive_the_disk(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    write_ids(tmp_path / "ids.png", ids)
    assert np.array_equal(read_ids(tmp_path / "ids.png"), ids) and picture_size(tmp_path / "ids.png") == (8, 32)
    assert np.array_equal(read_frame(tmp_path / "ids.png"), PALETTE[ids])  # what a viewer shows
    Image.fromarray(ids).save(tmp_path / "grey.png")
    assert np.array_equal(read_ids(tmp_path / "grey.png"), ids)
    with pytest.raises(UserError, match="does not exist"):
        read_ids(tmp_path / "none.png")


def test_damaged_pictures_are_one_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        path = tmp_path / f"whole.{suffix}"
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        for length in (0, 10, 40, len(content) // 2, len(content) - 30):
            cut = tmp_path / f"cut.{suffix}"
            cut.write_bytes(content[:length])
            with pytest.raises(UserError, match=r"cut\.\w+ is not a readable picture"):
                read_frame(cut)
    palette = tmp_path / "ids.png"
    write_ids(palette, noise[..., 0])
    palette.write_bytes(palette.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"ids\.png is not a readable picture"):
        read_ids(palette)


def test_a_picture_that_would_fill_the_memory_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"bomb\.png is not a readable picture"):
        read_ids(tmp_path / "bomb.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    for read in (read_frame, read_ids, picture_size):
        with pytest.raises(UserError, match="is not a file"):
            read(tmp_path / "0.png")
    with pytest.raises(VideoError, match="is not a file"):
        FrameFolder(tmp_path).read([0])
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="is not a file"):
        VideoFile(tmp_path / "clip.mp4")
