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
    assert [excerpt.name for excerpt in held_out] == ["video5", "video15", "video25", "video35"]
    training, held_out = split_held_out(videos(39, 100), 4, frame_gap=1)
    assert len(training) == 39 and {len(excerpt) for excerpt in held_out} == {10}
    training, held_out = split_held_out(videos(3, 100), 4, frame_gap=2)
    assert [excerpt.start for excerpt in held_out] == [90, 90, 90] and len(training) == 3


@pytest.mark.parametrize("frame_gap", [1, 4])
def test_a_whole_video_is_held_out_if_it_has_a_pair(frame_gap: int) -> None:
    short = [Numbers(f"video{index}", frame_gap + (index == 7)) for index in range(20)]
    training, held_out = split_held_out(short, 2, frame_gap)
    assert [excerpt.name for excerpt in held_out] == ["video7"] and len(held_out[0]) == frame_gap + 1
    assert len(training) == 19


@pytest.mark.parametrize("frame_gap", [1, 4])
def test_a_video_is_cut_if_its_tenth_has_a_pair(frame_gap: int) -> None:
    long, short = Numbers("long", 10 * (frame_gap + 1)), Numbers("short", 10 * (frame_gap + 1) - 1)
    training, held_out = split_held_out([short, long], 4, frame_gap)
    assert [(excerpt.name, len(excerpt)) for excerpt in held_out] == [("long", frame_gap + 1)]
    assert [(video.name, len(video)) for video in training] == [("short", len(short)), ("long", 9 * (frame_gap + 1))]
    assert held_out[0].fps == long.fps


def test_nothing_is_held_out_of_nothing_or_if_nothing_is_asked_for() -> None:
    assert split_held_out([], 3, frame_gap=1) == ([], [])
    whole = videos(3, 100)
    assert split_held_out(whole, 0, frame_gap=1) == (whole, [])
    assert [len(excerpt) for excerpt in split_held_out(whole, 1, frame_gap=1)[1]] == [10]


def test_a_gap_in_time_counts_in_frames_of_each_video() -> None:
    film, phone = Numbers("film", 30, fps=24.0), Numbers("phone", 30, fps=60.0)  # 100 ms: 2 frames, and 6
    training, held_out = split_held_out([film, phone], 2, "100ms")
    assert [excerpt.name for excerpt in held_out] == ["film"] and [len(video) for video in training] == [27, 30]
