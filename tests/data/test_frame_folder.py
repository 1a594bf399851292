"""Folders of pictures as videos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomac.data.frame_folder import FrameFolder
from videomac.data.synthetic import moving_shapes
from videomac.data.video import VideoError
from videomac.utils.video_writer import write_frames


def test_frames_come_in_natural_order(tmp_path: Path) -> None:
    for number in [0, 1, 2, 9, 10, 11, 100]:
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a frame")
    folder = FrameFolder(tmp_path)
    assert len(folder) == 7
    assert folder.read(range(7))[:, 0, 0, 0].tolist() == [0, 1, 2, 9, 10, 11, 100]
    assert folder.read([6, 0, 6])[:, 0, 0, 0].tolist() == [100, 0, 100]
    assert folder.fps == 24


def test_pictures_of_every_kind_become_rgb(tmp_path: Path) -> None:
    rgb = moving_shapes(1, (40, 48))[0][0].permute(1, 2, 0).numpy()
    image = Image.fromarray(rgb)
    grey = np.array(image.convert("L"))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(grey))
    palette = image.quantize(16)
    deep = grey.astype(np.uint16) * 257
    expected = {
        "0.png": (image, rgb),
        "1.png": (image.convert("L"), np.stack([grey] * 3, axis=-1)),
        "2.png": (alpha, rgb),
        "3.png": (palette, np.array(palette.convert("RGB"))),
        "4.png": (Image.fromarray(deep), np.stack([grey] * 3, axis=-1)),
        "5.BMP": (image, rgb),
        "6.png": (alpha.convert("LA"), np.stack([grey] * 3, axis=-1)),
        "7.png": (image.convert("1"), np.array(image.convert("1").convert("RGB"))),
    }
    for name, (picture, _) in expected.items():
        picture.save(tmp_path / name)
    image.save(tmp_path / "8.webp", lossless=True)
    palette.save(tmp_path / "9.png", transparency=3)
    image.convert("CMYK").save(tmp_path / "10.jpeg", quality=100)
    frames = FrameFolder(tmp_path).read(range(11)).permute(0, 2, 3, 1).numpy()
    for frame, (name, (_, pixels)) in zip(frames, expected.items(), strict=False):
        assert np.array_equal(frame, pixels), name
    assert np.array_equal(frames[8], rgb)
    assert np.array_equal(frames[9], expected["3.png"][1])
    assert np.abs(frames[10].astype(int) - rgb).mean() < 8


def test_frames_that_differ_in_size_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path, moving_shapes(4, (40, 48))[0])
    Image.new("RGB", (32, 40)).save(tmp_path / "00002.png")
    video = FrameFolder(tmp_path)
    assert video.read([0, 1, 3]).shape == (3, 3, 40, 48)
    with pytest.raises(VideoError, match=r"00002\.png has 32x40 pixels where 00001\.png has 48x40"):
        video.read([1, 2])


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_broken_pictures_are_named(tmp_path: Path, content: bytes | None) -> None:
    write_frames(tmp_path, moving_shapes(3, (40, 48))[0], suffix=".jpg")
    bad = tmp_path / "00001.jpg"
    bad.write_bytes(bad.read_bytes()[:500] if content is None else content)
    with pytest.raises(VideoError, match=r"00001\.jpg: "):
        FrameFolder(tmp_path).read([0, 1])


def test_a_folder_that_loses_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, moving_shapes(3, (40, 48))[0])
    video = FrameFolder(tmp_path)
    (tmp_path / "00001.png").unlink()
    os.utime(tmp_path, ns=(1, 1))
    with pytest.raises(VideoError, match="holds 2 pictures where there were 3"):
        video.read([2])
