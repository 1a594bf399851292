"""A random order of any number of things, of which any place can be asked for at once."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int64, UInt64

ROUNDS = 12
"""Shifts in all, in turns of either digit; four do for large sizes (Luby and Rackoff 1988), small ones need more."""


class KeyedPermutation:
    """A permutation of 0..size - 1 that is computed where it is looked at, without memory.

    A number is split into two digits, (x // right, x % right). In turns, one digit is shifted by a hash of the other
    and of the round's key, which is undone by shifting back: so every round is a bijection (Feistel's construction,
    with sums in place of exclusive or). The digits span hardly more numbers than `size`; one that lands beyond
    goes through again until it lands within, which keeps it a bijection (cycle walking).

    Attributes:
        size: of the set, at most 2^62.
    """

    def __init__(self, size: int, *key: int) -> None:
        """Choose the permutation.

        Args:
            size: at least 1.
            *key: not negative; equal keys give equal permutations, others unrelated ones.
        """
        if not 1 <= size <= 2**62:
            raise ValueError(f"a permutation of {size} things: there must be between 1 and 2^62")
        self.size = size
        self._left = np.uint64(math.isqrt(size - 1) + 1)
        self._right = np.uint64(-(-size // int(self._left)))
        self._keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)

    def __call__(self, places: Int64[np.ndarray, " places"]) -> Int64[np.ndarray, " places"]:
        """Return what stands at these places, each in 0..size - 1."""
        if len(places) and not 0 <= places.min() <= places.max() < self.size:
            raise IndexError(f"places {places.min()} to {places.max()} asked for of {self.size}")
        numbers = self._mix(places.astype(np.uint64))
        while (beyond := np.flatnonzero(numbers >= self.size)).size:
            numbers[beyond] = self._mix(numbers[beyond])
        return numbers.astype(np.int64)

    def _mix(self, numbers: UInt64[np.ndarray, " places"]) -> UInt64[np.ndarray, " places"]:
        left, right = numbers // self._right, numbers % self._right
        for first, second in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = (left + _hashed(right, first) % self._left) % self._left
            right = (right + _hashed(left, second) % self._right) % self._right
        mixed: UInt64[np.ndarray, " places"] = left * self._right + right
        return mixed


def _hashed(numbers: UInt64[np.ndarray, " places"], key: np.uint64) -> UInt64[np.ndarray, " places"]:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on all bits; sums wrap around."""
    with np.errstate(over="ignore"):
        mixed = numbers + key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: UInt64[np.ndarray, " places"] = mixed ^ (mixed >> np.uint64(31))
    return hashed
