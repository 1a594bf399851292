"""What is set aside is never trained on."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.data.sample_videos import Numbers
from videomac.data.split import split_held_out
from videomac.data.video import Video


def videos(count: int, length: int) -> list[Numbers]:
    return [Numbers(f"video{index}", length) for index in range(count)]


def frames(excerpts: Sequence[Video]) -> set[tuple[str, int]]:
    return {(v.name, int(v.read([t])[0, 0, 0, 0])) for v in excerpts for t in range(len(v))}


@pytest.mark.parametrize(
    ("count", "length", "pairs"), [(3, 100, 4), (1, 40, 4), (12, 30, 4), (40, 10, 4), (100, 5, 10)]
)
def test_no_frame_is_both_trained_on_and_held_out(count: int, length: int, pairs: int) -> None:
    training, held_out = split_held_out(videos(count, length), pairs, frame_gap=1)
    assert len(held_out) == min(count, pairs)
    assert not frames(training) & frames(held_out)
    assert frames(training) | frames(held_out) == frames(videos(count, length))
    share = len(frames(held_out)) / (count * length)
    assert share <= 0.11
    assert all(len(excerpt) > 1 for excerpt in held_out)


def test_many_videos_lose_whole_ones_and_few_their_ends() -> None:
    training, held_out = split_held_out(videos(40, 10), 4, frame_gap=1)
    assert {len(video) for video in training} == {10} and len(training) == 36
    training, held_out = split_held_out(videos(3, 100), 4, frame_gap=2)
    assert [excerpt.start for excerpt in held_out] == [90, 90, 90] and len(training) == 3


def test_short_videos_are_not_cut() -> None:
    training, held_out = split_held_out(videos(3, 12), 4, frame_gap=5)
    assert held_out == [] and len(training) == 3
    assert split_held_out(videos(3, 100), 0, frame_gap=1)[1] == []
