"""Frames and index masks on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from videomac.data.frame_folder import FrameFolder
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
