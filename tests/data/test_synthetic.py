from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from videomac.data.synthetic import moving_shapes
from videomac.utils.video_writer import write_frames, write_video


def test_objects_move_by_whole_pixels_with_their_texture() -> None:
    frames, ids = moving_shapes(30, (80, 100), num_objects=1, seed=3)
    assert frames.shape == (30, 3, 80, 100) and frames.dtype == torch.uint8
    assert ids.shape == (30, 80, 100) and ids.dtype == torch.uint8
    corners = []
    for now, then in zip(range(29), range(1, 30), strict=True):
        first, second = (np.argwhere(ids[t].numpy()) for t in (now, then))
        step = second[0] - first[0]
        assert 1 <= np.abs(step).min() and np.abs(step).max() <= 4
        assert np.array_equal(first + step, second)  # the whole mask is shifted
        before, after = (frames[t][:, where[:, 0], where[:, 1]] for t, where in ((now, first), (then, second)))
        assert torch.equal(before, after)
        corners.append(first[0])
    assert len({tuple(corner) for corner in corners}) > 20


def test_background_stands_still_and_is_textured() -> None:
    frames, ids = moving_shapes(20, (64, 64), num_objects=2, seed=1)
    uncovered = (ids == 0).all(dim=0)
    assert bool(uncovered.any())
    assert bool((frames[:, :, uncovered] == frames[:1, :, uncovered]).all())
    assert float(frames[0].float().std()) > 15


def test_all_objects_appear_and_seeds_differ() -> None:
    frames, ids = moving_shapes(10, (120, 160), num_objects=4, seed=0)
    assert set(ids.unique().tolist()) <= {0, 1, 2, 3, 4} and 4 in ids
    again, ids_again = moving_shapes(10, (120, 160), num_objects=4, seed=0)
    assert torch.equal(frames, again) and torch.equal(ids, ids_again)
    assert not torch.equal(frames, moving_shapes(10, (120, 160), num_objects=4, seed=1)[0])
    assert moving_shapes(1, (32, 32), num_objects=0)[1].max() == 0


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="32x32"):
        moving_shapes(3, (16, 64))


@pytest.mark.parametrize(
    ("name", "size"), [("a.mp4", (64, 80)), ("b.mp4", (65, 81)), ("c.webm", (64, 64)), ("d.avi", (64, 64))]
)
def test_write_video(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    frames, _ = moving_shapes(7, size, seed=2)
    write_video(tmp_path / name, frames, fps=12)
    with av.open(str(tmp_path / name)) as container:
        assert container.streams.video[0].average_rate == 12
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    difference = np.abs(decoded.astype(int) - frames.permute(0, 2, 3, 1).numpy())
    assert decoded.shape == (7, *size, 3)
    assert difference.mean() < 6


def test_write_frames(tmp_path: Path) -> None:
    frames, _ = moving_shapes(3, (40, 48))
    write_frames(tmp_path / "made" / "here", frames)
    write_frames(tmp_path / "lossy", frames, suffix=".jpg")
    names = sorted(path.name for path in (tmp_path / "made" / "here").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png"]
    last = np.array(Image.open(tmp_path / "made" / "here" / "00002.png"))
    assert np.array_equal(last, frames[2].permute(1, 2, 0).numpy())
    lossy = np.array(Image.open(tmp_path / "lossy" / "00002.jpg")).astype(int)
    assert np.abs(lossy - last).mean() < 6
