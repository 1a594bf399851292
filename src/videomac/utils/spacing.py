"""Even spacing, without chance and without the ends."""

from __future__ import annotations


def evenly_spaced(count: int, length: int) -> list[int]:
    """Return `count` indices below `length`: the middles of as many equal parts, so that neither end is favoured."""
    return [(2 * part + 1) * length // (2 * count) for part in range(count)]
