"""The permutation that is computed where it is looked at."""

from __future__ import annotations

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from videomac.data.permutation import KeyedPermutation


def whole(size: int, *key: int) -> np.ndarray:
    return KeyedPermutation(size, *key)(np.arange(size))


@pytest.mark.parametrize("size", [*range(1, 66), 99, 100, 101, 1023, 1024, 1025, 65_537, 1_000_003])
def test_everything_comes_exactly_once(size: int) -> None:
    for epoch in range(3):
        assert (np.sort(whole(size, 7, epoch)) == np.arange(size)).all()


def test_order_is_a_function_of_the_key_and_another_one_for_another_key() -> None:
    first = whole(1000, 0, 0)
    assert (first == whole(1000, 0, 0)).all()
    for key in ((0, 1), (1, 0), (1,), (0, 0, 1)):
        # Two unrelated permutations agree in one place on average.
        assert (first == whole(1000, *key)).sum() < 8


def test_any_place_at_once_in_a_thousand_million_without_memory() -> None:
    order = KeyedPermutation(10**9, 3, 0)
    places = np.array([0, 10**9 - 1, 123_456_789, 5])
    tracemalloc.start()
    try:
        found = order(places)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert len(set(found.tolist())) == 4 and (found >= 0).all() and (found < 10**9).all()
    assert [int(order(places[index : index + 1])[0]) for index in range(4)] == found.tolist()


def test_all_orders_of_four_things_are_about_equally_likely() -> None:
    known = {order: 0 for order in permutations(range(4))}
    for key in range(4800):
        known[tuple(whole(4, key).tolist())] += 1
    assert stats.chisquare(list(known.values())).pvalue > 1e-3


@pytest.mark.parametrize("size", [37, 1000, 2**20 + 7, 10**9])
def test_what_stands_at_a_place_is_uniform_and_unrelated_to_its_neighbours(size: int) -> None:
    count = 20_000
    # Over keys, at one place.
    at_start = np.array([KeyedPermutation(size, key)(np.array([min(3, size - 1)]))[0] for key in range(4000)])
    bins = min(size, 37)
    edges = np.arange(bins + 1) * size // bins
    expected = np.diff(edges) / size * len(at_start)
    assert stats.chisquare(np.histogram(at_start, edges)[0], expected).pvalue > 1e-3
    if size < 10_000:
        return
    # Within one order: each stretch is uniform, and neighbours, at several distances, know nothing of each other.
    found = KeyedPermutation(size, 11, 2)(np.arange(count)) / size
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    for distance in (1, 2, 7, 1024):
        correlation = np.corrcoef(found[:-distance], found[distance:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(count)
    table, _, _ = np.histogram2d(found[::2], found[1::2], bins=16, range=[[0, 1], [0, 1]])
    assert stats.chisquare(table.ravel()).pvalue > 1e-3
    # Steps up and down as in a shuffled order: rising runs are as long as chance makes them.
    rises = (np.diff(found) > 0).sum()
    assert abs(rises - count / 2) < 4 * np.sqrt(count / 12)


def test_neighbours_fall_apart_like_those_of_a_shuffled_order() -> None:
    """The places of k and k + 1 are compared, which the test above, of place and next place, does not see."""
    order = whole(50_000, 5)
    places = np.argsort(order) / len(order)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 4 / np.sqrt(len(order))


def test_fewer_than_one_thing_and_places_beyond_are_refused() -> None:
    with pytest.raises(ValueError, match="between 1"):
        KeyedPermutation(0, 1)
    with pytest.raises(IndexError, match="of 10"):
        KeyedPermutation(10, 1)(np.array([10]))
    assert KeyedPermutation(10, 1)(np.array([], dtype=np.int64)).size == 0
