from __future__ import annotations

import numpy as np
import pytest

from videomac.errors import UserError
from videomac.study.scores import AS_GOOD, Difference, difference


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    random = np.random.default_rng(3)
    names = ["a_1", "a_2", "a_3", "b_1", "c_1", "c_2"]
    first = [{name: float(random.normal(50, 5)) for name in names} for _ in range(3)]
    rows = [{name: score + float(random.normal(2, 3)) for name, score in scores.items()} for scores in first]
    found = difference(rows, first)
    means = []
    for _ in range(4000):  # draw seeds and sequences one by one
        gained = []
        drawn = random.choice(["a", "b", "c"], size=3)
        for seed in random.integers(3, size=3):
            for sequence in drawn:
                gained += [rows[seed][n] - first[seed][n] for n in names if n.startswith(str(sequence))]
        means.append(np.mean(gained))
    low, high = np.percentile(means, (2.5, 97.5))
    assert found.mean == pytest.approx(np.mean([rows[s][n] - first[s][n] for s in range(3) for n in names]))
    assert found.low == pytest.approx(low, abs=0.15)
    assert found.high == pytest.approx(high, abs=0.15)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random, held, trials = np.random.default_rng(0), 0, 200
    names = [f"s{number}_1" for number in range(20)]
    for _ in range(trials):
        of_seed, of_sequence = random.normal(0, 1, size=(10, 1)), random.normal(0, 1, size=(1, 20))
        gained = 1 + of_seed + of_sequence + random.normal(0, 1, size=(10, 20))
        first = [dict.fromkeys(names, 50.0) for _ in range(10)]
        rows = [dict(zip(names, 50 + line, strict=True)) for line in gained]
        found = difference(rows, first)
        held += found.low <= 1 <= found.high
    assert 0.88 <= held / trials <= 1


def test_equal_runs_differ_by_nothing_and_a_constant_gain_is_certain() -> None:
    first = [{"a_1": 40.0, "b_1": 60.0}, {"a_1": 42.0, "b_1": 61.0}]
    assert difference(first, first) == Difference(0, 0, 0)
    better = [{name: score + 3 for name, score in scores.items()} for scores in first]
    found = difference(better, first)
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3, 3))


def test_one_seed_gives_an_interval_over_sequences() -> None:
    found = difference([{"a_1": 40.0, "b_1": 66.0}], [{"a_1": 40.0, "b_1": 60.0}])
    assert (found.mean, found.low, found.high) == pytest.approx((3, 0, 6))


def test_runs_of_different_sequences_are_not_compared() -> None:
    with pytest.raises(UserError, match="different sequences"):
        difference([{"a_1": 1.0}], [{"b_1": 1.0}])


@pytest.mark.parametrize(
    ("low", "high", "worse", "better", "as_good"),
    [
        (-5, -3, "seen", "not seen", "not seen"),
        (-5, -1, "seen", "not seen", "undecided"),
        (-1, 1, "undecided", "undecided", "seen"),
        (-1.9, -0.5, "seen", "not seen", "seen"),
        (-3, 3, "undecided", "undecided", "undecided"),
        (0.5, 4, "not seen", "seen", "undecided"),
        (3, 4, "not seen", "seen", "not seen"),
    ],
)
def test_a_claim_is_seen_not_seen_or_undecided(low: float, high: float, worse: str, better: str, as_good: str) -> None:
    found = Difference((low + high) / 2, low, high)
    assert AS_GOOD == 2
    assert (found.verdict("worse"), found.verdict("better"), found.verdict("as good")) == (worse, better, as_good)
