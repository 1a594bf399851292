"""How far the two frames of a pair lie apart: in frames, or in time, so that 24 and 60 frames per second mix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from videomac.errors import UserError

_MILLISECONDS = re.compile(r"(\d+(?:\.\d+)?)ms")


@dataclass(frozen=True)
class FrameGap:
    """The distance of the two frames of a pair.

    Attributes:
        value: a number of frames, at least 1, or a time above 0, such as "40ms".

    Raises:
        UserError: it is neither.
    """

    value: int | str

    def __post_init__(self) -> None:
        """Refuse what is no distance."""
        if isinstance(self.value, int) and not isinstance(self.value, bool) and self.value >= 1:
            return
        if isinstance(self.value, str) and _milliseconds(self.value) > 0:
            return
        raise UserError(
            f"frame_gap must be a number of frames, at least 1, or a time such as 40ms, but is {self.value!r}"
        )

    def __str__(self) -> str:
        """As it was given."""
        return str(self.value)

    def frames(self, fps: float) -> int:
        """The distance in frames of a video of so many frames per second: the nearest to the time, at least 1."""
        if isinstance(self.value, int):
            return self.value
        return max(1, int(_milliseconds(self.value) / 1000 * fps + 0.5))


def _milliseconds(text: str) -> float:
    found = _MILLISECONDS.fullmatch(text)
    return float(found[1]) if found else 0.0
