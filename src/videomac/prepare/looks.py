"""What a shot looks like in a few numbers: whether anything moves in it, and whether another one looks the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

CHANGED = 8
"""Grey levels, of 255, by which a pixel of a thumbnail must change to count as moved."""
STATIC_SHARE = 0.002
"""Share of a thumbnail's pixels that may move, from one key frame to the next, in a static shot: four of them."""
BITS = 192
ALIKE = 10
"""Bits, of `BITS`, in which clips that look alike may differ."""

Thumbnail = UInt8[np.ndarray, "36 64"]


def is_static(thumbnails: Sequence[Thumbnail]) -> bool:
    """Whether nothing moves in a shot, by the brightness of its key frames and its last frame."""
    moved = [
        float((np.abs(one.astype(np.int16) - other) > CHANGED).mean())
        for one, other in zip(thumbnails[1:], thumbnails[:-1], strict=True)
    ]
    return not moved or max(moved) <= STATIC_SHARE


def fingerprint(thumbnails: Sequence[Thumbnail]) -> str:
    """Difference hashes of the first, middle and last of a shot's key frames, as 48 hexadecimal digits."""
    chosen = (thumbnails[0], thumbnails[len(thumbnails) // 2], thumbnails[-1])
    return "".join(_difference_hash(thumbnail) for thumbnail in chosen)


def _difference_hash(thumbnail: Thumbnail) -> str:
    """Whether each of 8x8 places is brighter than the one to its left."""
    # 36 x 64 in 8 x 9 blocks: the sums up to each edge, and their differences.
    rows, columns = np.linspace(0, 36, 9).round().astype(int), np.linspace(0, 64, 10).round().astype(int)
    sums = np.add.reduceat(np.add.reduceat(thumbnail.astype(np.float64), rows[:-1], 0), columns[:-1], 1)
    means = sums / np.outer(np.diff(rows), np.diff(columns))
    # Half a grey level: else noise decides about the even parts of a picture.
    return bytes(np.packbits(means[:, 1:] > means[:, :-1] + 0.5)).hex()


def look_alikes(fingerprints: Sequence[str]) -> dict[int, int]:
    """For each clip that looks like an earlier one, the first such one.

    Whether a clip is in the answer depends on the clips before it alone, dropped ones included: what is dropped stays
    so when more clips are prepared.

    Args:
        fingerprints: of the clips, in their order.

    Returns:
        Number of the clip to that of the earlier one.
    """
    bits = np.unpackbits(
        np.frombuffer(bytes.fromhex("".join(fingerprints)), dtype=np.uint8).reshape(len(fingerprints), -1), axis=1
    )
    # Of eleven bands at least one is equal where ten bits differ at most.
    found: dict[int, int] = {}
    for band in np.array_split(np.arange(BITS), ALIKE + 1):
        groups: dict[bytes, list[int]] = defaultdict(list)
        for number, key in enumerate(np.packbits(bits[:, band], axis=1)):
            groups[key.tobytes()].append(number)
        for members in groups.values():
            for place in range(1, len(members)):
                number = members[place]
                earlier = np.array(members[:place])
                alike = (bits[earlier] != bits[number]).sum(axis=1) <= ALIKE
                if alike.any():
                    first = int(earlier[alike.argmax()])
                    found[number] = min(first, found.get(number, first))
    return found
