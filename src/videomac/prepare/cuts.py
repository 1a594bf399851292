"""Where one shot ends and the next begins.

A cut is a frame that differs from the one before far more than its neighbours do: fast motion makes all of them differ.
The idea is that of PySceneDetect's AdaptiveDetector; `bench/prepare.py` compares the two on cuts that are known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import UInt8

WINDOW = 2
"""Neighbours on each side that a difference is compared with."""
RATIO = 3.0
"""How many times the mean of its neighbours' a difference must be."""
LEAST = 8.0
"""Mean absolute difference of the pixels, of 255, below which nothing is a cut."""


@dataclass(frozen=True)
class Picture:
    """A frame made ready for a clip.

    Attributes:
        frame: upright, of its final size, yuv420p.
        thumbnail: the same, whatever its shape, squeezed: Y, U and V.
        seconds: from the first frame of the source.
        after_gap: it does not follow upon the picture before.
    """

    frame: VideoFrame
    thumbnail: UInt8[np.ndarray, "3 36 64"]
    seconds: float
    after_gap: bool


@dataclass
class _Scored:
    picture: Picture
    difference: float | None  # None: there is nothing to compare it with
    forced: bool = field(default=False)


def find_cuts(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bool]]:
    """Yield every picture with whether a new shot begins with it, `WINDOW` pictures late; the first one does."""
    before: deque[float] = deque(maxlen=WINDOW)
    ahead: deque[_Scored] = deque()
    for scored in _scored(pictures):
        ahead.append(scored)
        if len(ahead) > WINDOW:
            yield _judged(before, ahead)
    while ahead:
        yield _judged(before, ahead)


def _scored(pictures: Iterable[Picture]) -> Iterator[_Scored]:
    last: Picture | None = None
    for picture in pictures:
        if last is None or picture.after_gap or _size(picture) != _size(last):
            yield _Scored(picture, None, forced=True)
        else:
            change = np.abs(picture.thumbnail.astype(np.int16) - last.thumbnail)
            yield _Scored(picture, float(change.mean()))
        last = picture


def _size(picture: Picture) -> tuple[int, int]:
    return picture.frame.height, picture.frame.width


def _judged(before: deque[float], ahead: deque[_Scored]) -> tuple[Picture, bool]:
    """Take the next picture from the queue and compare its difference with its neighbours'."""
    scored = ahead.popleft()
    if scored.difference is None:
        return scored.picture, scored.forced
    after = [other.difference for other in ahead if other.difference is not None]
    around = [*before, *after]
    before.append(scored.difference)
    usual = sum(around) / len(around) if around else 0.0
    return scored.picture, scored.difference >= max(LEAST, RATIO * usual)
