"""The score without labels: 1 for perfect features, no more than chance for features that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videomac.data.synthetic import moving_shapes
from videomac.evaluate.cycle import Return, overlap, score, still, travel
from videomac.evaluate.cycle_clips import PIECES, Planted, plant
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.propagation import propagate


@pytest.fixture(scope="module")
def clip() -> Planted:
    """Noise of another colour in every piece, which moves by four pixels a frame."""
    frames, other = moving_shapes(6, (48, 80), seed=1)[0], moving_shapes(6, (48, 80), seed=2)[0]
    return plant(frames, other, seed=5)


class Truth(torch.nn.Module):
    """Which piece a pixel is of, read from its colour."""

    def forward(self, frames: Tensor) -> Tensor:
        return (frames > frames.new_zeros(())).float() * 2 - 1


class Places(torch.nn.Module):
    """Where a cell is, and nothing of what is there: 1 with the same place in any frame, about 0 with any other."""

    def forward(self, frames: Tensor) -> Tensor:
        place = torch.stack(torch.meshgrid(*map(torch.arange, frames.shape[-2:]), indexing="ij"), dim=-1)
        generator = torch.Generator().manual_seed(0)
        waves = 2.5 * torch.randn(2, 128, generator=generator)
        phases = 2 * np.pi * torch.rand(128, generator=generator)
        return (place.float() @ waves + phases).cos().permute(2, 0, 1).expand(len(frames), -1, -1, -1)


class Constant(torch.nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return torch.ones_like(frames[:, :1])


@pytest.fixture(scope="module")
def by_truth(clip: Planted) -> Return:
    """What perfect features make of the clip, whose pieces have a colour each: (0 or 255) in each channel."""
    bits = torch.stack([clip.pieces >> channel & 1 for channel in range(3)], dim=1)
    return travel(FeatureExtractor(Truth()), Planted(bits * 255, clip.pieces))


@pytest.fixture(scope="module")
def by_places(clip: Planted) -> Return:
    return travel(FeatureExtractor(Places()), clip)


def test_perfect_features_bring_everything_home(clip: Planted, by_truth: Return) -> None:
    assert by_truth.score > 0.99  # what another piece has hidden may be out of the window's reach
    assert torch.equal(by_truth.there[0], clip.pieces[0])
    assert (by_truth.back == clip.pieces).float().mean() > 0.998


def test_features_that_know_only_places_score_as_if_nothing_moved(
    clip: Planted, by_truth: Return, by_places: Return
) -> None:
    assert by_places.score == pytest.approx(still(clip), abs=1e-3)
    assert still(clip) < 0.7 < by_truth.score


def test_features_that_know_nothing_score_no_better_than_staying_still(clip: Planted) -> None:
    assert travel(FeatureExtractor(Constant()), clip).score < still(clip)
    noise = torch.randn(6, 8, 48, 80, generator=torch.Generator().manual_seed(0))
    frames = iter(noise)

    def random(batch: Tensor) -> Tensor:
        if batch.shape[-2:] != (48, 80):  # the question for the stride
            return batch.new_zeros(len(batch), 8, *batch.shape[-2:])
        return torch.stack([next(frames) for _ in batch])

    assert travel(FeatureExtractor(random), clip).score < still(clip)


def test_the_score_equals_a_slow_one(clip: Planted) -> None:
    """Every step written out: features at once, the whole-video propagation, overlaps by sets of pixels."""
    extractor = FeatureExtractor("raw-pixels", stride=8)
    found = travel(extractor, clip, batch_size=4)
    with torch.inference_mode():
        features = extractor(clip.frames.float() / 255)
    settings = {"context_frames": 7, "topk": 5, "radius": 1, "temperature": 0.1}
    first = torch.stack([(clip.pieces[0] == piece).float() for piece in range(PIECES + 1)])
    there = propagate(features, F.avg_pool2d(first, 8), **settings)
    arrived = F.one_hot(there[-1].argmax(0), PIECES + 1).permute(2, 0, 1).float()
    back = propagate(features.flip(0), arrived, **settings).flip(0)
    overlaps = []
    for maps, times in ((there, range(1, 6)), (back, range(5))):
        for time in times:
            ids = F.interpolate(maps[time][None], (48, 80), mode="bilinear")[0].argmax(0).numpy()
            truth = clip.pieces[time].numpy()
            for piece in range(1, PIECES + 1):
                one, two = ({*zip(*np.nonzero(which == piece), strict=True)} for which in (ids, truth))
                overlaps.append(len(one & two) / len(one | two))
    assert found.score == pytest.approx(np.mean(overlaps), abs=1e-6)


def test_where_a_place_was_in_the_last_frame_is_known(clip: Planted, by_truth: Return, by_places: Return) -> None:
    """Places alone lead each cell back to itself; the truth leads cells of a piece to that piece."""
    own = torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(80.0), indexing="ij"))
    assert (by_places.origin - own).abs().max() < 0.5
    y, x = by_truth.origin[:, clip.pieces[0] == 2].round().long()
    assert (clip.pieces[-1][y, x] == 2).float().mean() > 0.9


def test_overlap_of_pieces_that_are_not_there() -> None:
    nothing = torch.zeros(4, 4, dtype=torch.uint8)
    one = nothing.clone()
    one[:2] = 1
    assert overlap(nothing, nothing) == 1
    assert overlap(one, nothing) == overlap(nothing, one) == 0.5  # the second piece is rightly absent
    half = one.clone()
    half[1] = 2
    assert overlap(half, one) == (0.5 + 0) / 2


def test_the_score_leaves_out_the_frame_that_each_way_begins_with(clip: Planted) -> None:
    nothing = torch.zeros_like(clip.pieces)
    assert score(clip.pieces, clip.pieces, clip) == 1
    assert score(nothing, nothing, clip) == 0
    spoilt = clip.pieces.clone()
    spoilt[0] = 0
    assert score(spoilt, clip.pieces, clip) == 1
    spoilt = clip.pieces.clone()
    spoilt[-1] = 0
    assert score(clip.pieces, spoilt, clip) == 1
