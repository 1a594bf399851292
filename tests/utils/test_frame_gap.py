"""The distance of a pair's frames, in frames and in time."""

from __future__ import annotations

import pytest

from videomac.errors import UserError
from videomac.utils.frame_gap import FrameGap


@pytest.mark.parametrize(
    ("value", "fps", "frames"),
    [
        (3, 24, 3),
        (3, 60, 3),
        ("40ms", 24, 1),  # 0.96 of a frame
        ("40ms", 25, 1),
        ("40ms", 60, 2),  # 2.4 frames
        ("50ms", 50, 3),  # 2.5 frames
        ("40ms", 240, 10),
        ("1ms", 24, 1),
        ("33.4ms", 120, 4),
        ("2000ms", 0.5, 1),
    ],
)
def test_the_nearest_number_of_frames_but_at_least_one(value: int | str, fps: float, frames: int) -> None:
    assert FrameGap(value).frames(fps) == frames
    assert str(FrameGap(value)) == str(value)


WRONG = [0, -1, True, 2.0, None, "0ms", "-40ms", "40", "40 s", "40 ms", "40s", "nan", "nanms", "inf", "1e3ms", "", "ms"]


@pytest.mark.parametrize("value", WRONG)
def test_anything_else_is_refused_in_a_sentence(value: object) -> None:
    with pytest.raises(UserError, match=r"frame_gap must be a number of frames, at least 1, or a time such as 40ms, "):
        FrameGap(value)  # type: ignore[arg-type]
