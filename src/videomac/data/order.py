"""The order in which an epoch takes its pairs: any stretch of it, a function of (seed, epoch, place) alone."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from videomac.data.permutation import KeyedPermutation

TOGETHER = 2
"""Pairs that one decoding of a group of pictures gives, at most."""
LARGE_BATCH = 256
"""Pairs of a batch that may take several of one group."""


def together_in(global_batch_size: int) -> int:
    """How many pairs of one group of pictures a batch takes.

    Pairs of one group are alike, and a batch that has two of each has half as many different ones. In batches of 32
    that costs: the held-out loss after 320 steps was .004 and .030 higher (two seeds), with four of each about .015.
    Large batches have enough, and are where reading must be fast.
    """
    return TOGETHER if global_batch_size >= LARGE_BATCH else 1


class Order(Protocol):
    """What `PairSampler` asks of an order."""

    @property
    def together(self) -> int:
        """So many neighbours in the order, from each multiple of it on, are read together."""

    def __len__(self) -> int:
        """Return the number of pairs of an epoch."""

    def take(self, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " places"]:
        """Return the numbers of the pairs at the places `start` to `stop` (exclusive) of an epoch."""


class ShuffledOrder:
    """Every number once, in an order that is drawn as a whole and held in memory, 8 bytes a pair."""

    together = 1

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed = length, seed
        self._drawn: tuple[int, Int64[np.ndarray, " pairs"]] | None = None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self._length

    def take(self, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " places"]:
        """See `Order`."""
        if self._drawn is None or self._drawn[0] != epoch:
            generator = np.random.default_rng(np.random.SeedSequence((self._seed, epoch)))
            self._drawn = epoch, generator.permutation(self._length)
        return self._drawn[1][start:stop]


class GroupedOrder:
    """Pairs in twos (or as many as `together`) out of one group of pictures, and these in random order.

    Decoding a group up to its last frame gives all of its frames for the price of that one. So a group's pairs are
    dealt out into hands of `together`, as far from each other in time as can be: of a group of 12 frames the pairs that
    begin with frames 0 and 6, 1 and 7, ... Each hand comes somewhere else in the epoch, so that a batch has no more
    than one hand of a group, but for chance. Pairs that are left over at the end of a clip share hands with those of
    other clips; of the whole epoch fewer than `together` pairs are left out.

    The epoch's order is a keyed permutation of the hands, computed where it is looked at: it takes no memory, and three
    numbers for each clip tell what is in a hand.
    """

    def __init__(self, counts: Int64[np.ndarray, " clips"], gop: int, seed: int, together: int = TOGETHER) -> None:
        """Deal out the pairs.

        Args:
            counts: number of pairs of each clip; pair k begins with frame k.
            gop: frames from one key frame to the next.
            seed: not negative.
            together: pairs in a hand, at most; as many as divide `gop`.
        """
        self.together, self._gop, self._seed = math.gcd(gop, together), gop, seed
        self._counts = counts
        self._pair_ends = np.cumsum(counts)
        self._hand_ends = np.cumsum(counts // self.together)
        self._rest_ends = np.cumsum(counts % self.together)
        self._hands = int(self._pair_ends[-1]) // self.together if len(counts) else 0

    def __len__(self) -> int:
        """Return the number of pairs of an epoch."""
        return self._hands * self.together

    def take(self, epoch: int, start: int, stop: int) -> Int64[np.ndarray, " places"]:
        """See `Order`."""
        first, size = start // self.together, self.together
        hands = KeyedPermutation(self._hands, self._seed, epoch)(np.arange(first, -(-stop // size)))
        pairs = self._pairs_in(hands).ravel()
        return pairs[start - first * size : stop - first * size]

    def _pairs_in(self, hands: Int64[np.ndarray, " hands"]) -> Int64[np.ndarray, "hands together"]:
        """The numbers of the pairs in these hands, counted over all clips."""
        whole = int(self._hand_ends[-1])
        pairs = np.empty((len(hands), self.together), dtype=np.int64)
        of_group = hands < whole
        pairs[of_group] = self._from_groups(hands[of_group])
        left_over = (hands[~of_group, None] - whole) * self.together + np.arange(self.together)
        pairs[~of_group] = self._from_rests(left_over)
        return pairs

    def _from_groups(self, hands: Int64[np.ndarray, " hands"]) -> Int64[np.ndarray, "hands together"]:
        clips = np.searchsorted(self._hand_ends, hands, side="right")
        hands_of_clip = self._counts[clips] // self.together
        hand = hands - (self._hand_ends[clips] - hands_of_clip)
        most = self._gop // self.together
        group, place = np.divmod(hand, most)
        step = np.minimum(most, hands_of_clip - group * most)  # hands of this group: fewer in the last one
        start = self._pair_ends[clips] - self._counts[clips] + group * self._gop + place
        pairs: Int64[np.ndarray, "hands together"] = start[:, None] + step[:, None] * np.arange(self.together)
        return pairs

    def _from_rests(self, numbers: Int64[np.ndarray, "hands together"]) -> Int64[np.ndarray, "hands together"]:
        """The last pairs of the clips, which fill no hand."""
        clips = np.searchsorted(self._rest_ends, numbers, side="right")
        pairs: Int64[np.ndarray, "hands together"] = self._pair_ends[clips] - (self._rest_ends[clips] - numbers)
        return pairs
