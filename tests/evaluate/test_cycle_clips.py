"""Planted pieces: where they are said to be, and nowhere else, is the other clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from videomac.data.synthetic import moving_shapes
from videomac.evaluate.cycle_clips import CONTRAST, EXPOSURE, PIECES, TINT, plant


def test_a_piece_shows_the_other_clip_where_it_is_said_to_be() -> None:
    frames, _ = moving_shapes(6, (96, 160))
    other = torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 50, 70) * 40  # a grey of its own a frame
    planted = plant(frames, other, seed=3, light=False)
    for time in range(6):
        inside = planted.pieces[time] > 0
        assert torch.equal(planted.frames[time][:, ~inside], frames[time][:, ~inside])
        assert (planted.frames[time][:, inside] == 40 * time).all()


def test_pieces_begin_side_by_side_and_move() -> None:
    frames = torch.zeros(8, 3, 96, 160, dtype=torch.uint8)
    for seed in range(20):
        planted = plant(frames, frames, seed)
        assert planted.pieces.unique().tolist() == list(range(PIECES + 1))
        middles = []
        for piece in range(1, PIECES + 1):
            rows, columns = (planted.pieces[0] == piece).nonzero().T
            assert 0.01 < len(rows) / (96 * 160) < 0.12
            middles.append(float(columns.float().mean()))
        assert middles == sorted(middles)
        assert not torch.equal(planted.pieces[0], planted.pieces[-1])


def test_the_seed_decides_everything() -> None:
    frames, _ = moving_shapes(4, (64, 96))
    one, same, other = (plant(frames, frames.flip(0), seed) for seed in (1, 1, 2))
    assert torch.equal(one.frames, same.frames) and torch.equal(one.pieces, same.pieces)
    assert not torch.equal(one.pieces, other.pieces)


def test_light_changes_every_frame_and_no_piece() -> None:
    frames = torch.full((6, 3, 64, 96), 128, dtype=torch.uint8)
    plain, lit = (plant(frames, frames, 0, light) for light in (False, True))
    assert torch.equal(plain.pieces, lit.pieces) and torch.equal(plain.frames, frames)
    means = lit.frames.float().mean((1, 2, 3))
    assert len(means.unique()) == 6 and float((means / 128 - 1).abs().max()) < 0.25
    assert float(lit.frames.float().std((2, 3)).max()) == 0  # a flat frame stays flat


def test_exposure_contrast_and_tint_all_change_as_far_as_they_may() -> None:
    frames = torch.full((30, 3, 32, 48), 88, dtype=torch.uint8)
    frames[..., ::2] = 168
    lit = plant(frames, frames, seed=4)
    levels = []
    for frame, pieces in zip(lit.frames.float(), lit.pieces, strict=True):
        bright, dark = (frame[:, :, first::2][:, pieces[:, first::2] == 0].mean(1) for first in (0, 1))
        middle = (bright + dark) / 2
        levels.append([middle.mean() / 128, ((bright - dark) / middle).mean() / 0.625, middle[0] / middle[2]])
    reach = np.ptp(np.array(levels), axis=0)
    most = 2 * np.array([EXPOSURE, CONTRAST, 2 * TINT])
    assert (reach > 0.5 * most).all() and (reach < 1.2 * most).all()


def test_a_piece_glides_turns_grows_or_shrinks_and_stays_in_the_frame() -> None:
    """The last piece, which lies over all others."""
    frames = torch.zeros(40, 3, 64, 96, dtype=torch.uint8)
    for seed in range(6):
        pieces = plant(frames, frames, seed).pieces == PIECES
        assert pieces.flatten(1).any(1).all()
    turns, sizes = [], []
    for seed in range(6):
        first, last = (plant(frames[:5], frames[:5], seed).pieces == PIECES)[[0, 4]]
        axes = [np.linalg.eigh(np.cov(piece.nonzero().double().numpy().T))[1][:, 1] for piece in (first, last)]
        turns.append(abs(float(axes[0] @ axes[1])))
        sizes.append(float(last.sum() / first.sum()))
    assert min(turns) < 0.98 and max(sizes) > 1.05 and min(sizes) < 0.95


def test_the_outline_is_the_same_in_every_frame_but_turned_and_scaled() -> None:
    """What is left of a piece after undoing the motion of its middle, its turn and its growth does not change."""
    frames = torch.zeros(5, 3, 200, 300, dtype=torch.uint8)
    for seed in range(4):
        pieces = plant(frames, frames, seed).pieces
        shapes = []
        for ids in pieces:
            places = (ids == PIECES).nonzero().double().numpy()  # the last one lies over all others
            if places.min() == 0 or (places.max(0) == [199, 299]).any():
                break
            spread = np.sqrt(np.linalg.eigvalsh(np.cov(places.T)))
            shapes.append([spread[1] / spread[0], len(places) / spread.prod()])
        assert len(shapes) > 1 and np.ptp(shapes, axis=0).max() < 0.1 * np.min(shapes)


def test_clips_of_different_lengths_are_refused() -> None:
    frames = torch.zeros(4, 3, 64, 96, dtype=torch.uint8)
    with pytest.raises(ValueError, match="equally many frames, not 4 and 3"):
        plant(frames, frames[:3], 0)
