"""The order of pairs that are read together."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest

from videomac.data.order import GroupedOrder, ShuffledOrder, together_in


def test_the_shuffled_order_is_numpys_permutation_of_seed_and_epoch() -> None:
    order = ShuffledOrder(50, seed=3)
    for epoch in (0, 2, 0):
        expected = np.random.default_rng(np.random.SeedSequence((3, epoch))).permutation(50)
        assert (order.take(epoch, 10, 37) == expected[10:37]).all()
    assert len(order) == 50 and order.together == 1


@pytest.mark.parametrize("together", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("counts", [(100, 7, 0, 23, 12, 1, 1), (5,), (12, 12), (1, 1, 1, 1), (3, 0, 40)])
def test_an_epoch_has_every_pair_once_but_for_less_than_one_hand(counts: tuple[int, ...], together: int) -> None:
    order = GroupedOrder(np.array(counts), 12, seed=0, together=together)
    taken = order.take(1, 0, len(order)) if len(order) else np.array([], dtype=np.int64)
    assert len(taken) == len(order) == sum(counts) // together * together
    assert len(set(taken.tolist())) == len(taken) and all(0 <= pair < sum(counts) for pair in taken)


@pytest.mark.parametrize("together", [2, 3, 4])
def test_a_hand_is_of_one_group_of_pictures_and_spread_over_it(together: int) -> None:
    counts = np.array([120, 30, 59, 11])
    order = GroupedOrder(counts, 12, seed=4, together=together)
    ends = np.cumsum(counts)
    scattered = 0
    for hand in order.take(0, 0, len(order)).reshape(-1, together):
        clips = np.searchsorted(ends, hand, side="right")
        frames = hand - (ends[clips] - counts[clips])
        if len(set(clips.tolist())) > 1 or len(set((frames // 12).tolist())) > 1:
            scattered += 1
            continue
        steps = set(np.diff(frames).tolist())
        group = min(12, counts[clips[0]] - frames[0] // 12 * 12)
        assert steps == {group // together} or scattered
    # Only what is left over at the ends of clips shares a hand with others.
    assert scattered <= -(-int((counts % together).sum()) // together)


def test_any_stretch_is_what_the_whole_epoch_has_there() -> None:
    order = GroupedOrder(np.array([100, 7, 23]), 12, seed=0, together=4)
    whole = order.take(5, 0, len(order))
    for start, stop in ((0, 1), (1, 3), (3, 4), (3, 9), (100, 128), (127, 128)):
        assert (order.take(5, start, stop) == whole[start:stop]).all()
    assert (whole != order.take(6, 0, len(order))).any()
    assert (whole != GroupedOrder(np.array([100, 7, 23]), 12, seed=1, together=4).take(5, 0, len(order))).any()


def test_a_groups_hands_are_far_apart_in_the_epoch() -> None:
    """Two pairs of one hand stand side by side; the group's other hands come in other batches, but for chance."""
    counts = np.full(500, 120)
    order = GroupedOrder(counts, 12, seed=0)
    batch = order.take(0, 0, 512)
    groups = Counter((batch // 12).tolist())
    # 256 hands out of 5,000 groups of six: 256 * 255 / 2 * 5 / 29,999 = 5.4 couples of one group are expected.
    assert sum(count > 2 for count in groups.values()) < 15
    assert sum(count == 2 for count in groups.values()) > 230


def test_as_many_pairs_together_as_divide_the_group() -> None:
    assert GroupedOrder(np.array([100]), 10, seed=0, together=4).together == 2
    assert GroupedOrder(np.array([100]), 25, seed=0, together=2).together == 1


def test_a_thousand_million_pairs_take_no_memory_of_their_own() -> None:
    counts = np.full(1000, 10**6)
    tracemalloc.start()
    try:
        order = GroupedOrder(counts, 12, seed=0)
        pairs = order.take(3, 10**9 - 512, 10**9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(order) == 10**9 and len(set(pairs.tolist())) == 512 and peak < 10**6


def test_small_batches_take_one_pair_of_a_group_and_large_ones_two() -> None:
    assert [together_in(size) for size in (1, 32, 255, 256, 512)] == [1, 1, 1, 2, 2]
