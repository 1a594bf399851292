"""What the runs reached, and how sure a difference between two rows is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videomac.errors import UserError
from videomac.study.plan import Expectation
from videomac.utils.reading import read_text, reading

DRAWS = 10_000
"""Of the bootstrap."""
AS_GOOD = 2.0
"""Points of J&F within which the interval of a row must lie that is as good as the first one."""


@dataclass(frozen=True)
class Difference:
    """Of a row to the first one, in points of J&F.

    Attributes:
        mean: over seeds and objects.
        low: end of the 95 % interval.
        high: the other end.
    """

    mean: float
    low: float
    high: float

    def verdict(self, expect: Expectation) -> str:
        """Whether what the paper says of the row is "seen", "not seen" (its contrary is), or "undecided"."""
        if expect == "as good":
            within, outside = -AS_GOOD <= self.low and self.high <= AS_GOOD, self.low > AS_GOOD or self.high < -AS_GOOD
            return "seen" if within else "not seen" if outside else "undecided"
        low, high = (self.low, self.high) if expect == "better" else (-self.high, -self.low)
        return "seen" if low > 0 else "not seen" if high < 0 else "undecided"


def object_scores(folder: Path) -> dict[str, float]:
    """J&F of every object, in percent, from what `eval davis` left in a folder; names are "SEQUENCE_NUMBER".

    Raises:
        UserError: the table is damaged.
    """
    path = folder / "metrics.csv"
    with reading(path):
        rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
        return {row["Sequence"]: 50 * (float(row["J-Mean"]) + float(row["F-Mean"])) for row in rows}


def total_score(folder: Path) -> float:
    """J&F of an evaluation, in percent.

    Raises:
        UserError: its numbers are damaged.
    """
    path = folder / "metrics.json"
    with reading(path):
        return 100 * float(json.loads(read_text(path))["J&F-Mean"])


def difference(rows: Sequence[Mapping[str, float]], first: Sequence[Mapping[str, float]]) -> Difference:
    """How much better a row is than another, with a paired 95 % interval over seeds and sequences.

    A bootstrap draws seeds and sequences anew, both at once, each with what belongs to it: the objects of a sequence
    stay together, and so do the two runs of a seed. With a single seed, the interval is over sequences alone.

    Args:
        rows: J&F of each object of the row, one mapping a seed.
        first: the same of the first row, of the same seeds.

    Raises:
        UserError: the runs were judged on different objects.
    """
    names = sorted(first[0])
    if any(sorted(scores) != names for scores in (*rows, *first)):
        raise UserError("the runs were judged on different sequences: judge all of them on one data set")
    gained = np.array([[a[name] - b[name] for name in names] for a, b in zip(rows, first, strict=True)])
    sequences = [name.rpartition("_")[0] for name in names]
    groups = np.array([[sequence == each for each in sorted(set(sequences))] for sequence in sequences], dtype=float)
    means = _draw(gained @ groups, groups.sum(axis=0), np.random.default_rng(0))
    low, high = np.percentile(means, (2.5, 97.5))
    return Difference(float(gained.mean()), float(low), float(high))


def _draw(
    sums: npt.NDArray[np.float64], objects: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of bootstrap draws.

    Args:
        sums: `[seeds, sequences]`, over the objects of a sequence.
        objects: of each sequence.
        random: where the draws are from.
    """
    seeds, sequences = sums.shape
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)
    of_sequences = random.multinomial(sequences, np.full(sequences, 1 / sequences), size=DRAWS)
    totals = np.einsum("ds,sq,dq->d", of_seeds, sums, of_sequences, optimize=True)
    means: npt.NDArray[np.float64] = totals / (seeds * (of_sequences @ objects))
    return means
