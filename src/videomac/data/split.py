"""Set videos, or ends of videos, aside that are never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from videomac.data.video import Video
from videomac.utils.frame_gap import FrameGap
from videomac.utils.spacing import evenly_spaced


@dataclass(frozen=True)
class Excerpt:
    """The frames `start` to `stop` of a video, as a video."""

    video: Video
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The video's name."""
        return self.video.name

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.video.fps

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.stop - self.start

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Read frames by their number within the excerpt."""
        return self.video.read([self.start + index for index in indices])


def split_held_out(videos: Sequence[Video], pairs: int, frame_gap: int | str) -> tuple[list[Video], list[Excerpt]]:
    """Set aside what `pairs` held-out pairs need.

    With at least ten videos per held-out pair, whole videos are set aside, evenly spread over the sorted list; with
    fewer, the last tenth of evenly spread videos, if that is enough frames for a pair.

    Args:
        videos: in the order in which they are spread over.
        pairs: that will be held out.
        frame_gap: distance of the two frames of a pair, in frames or as a time such as "40ms".

    Returns:
        the videos to train on, and the held-out excerpts (possibly fewer than `pairs`, possibly none).
    """
    gap = FrameGap(frame_gap)
    lengths = np.array([len(video) for video in videos], dtype=np.int64)
    gaps = np.array([gap.frames(video.fps) for video in videos], dtype=np.int64)
    numbers, whole = choose_held_out(lengths, gaps, pairs)
    chosen = set(numbers)
    training: list[Video] = []
    held_out: list[Excerpt] = []
    for index, video in enumerate(videos):
        if index not in chosen:
            training.append(video)
            continue
        length = len(video)
        start = 0 if whole else length - length // 10
        held_out.append(Excerpt(video, start, length))
        if not whole:
            training.append(Excerpt(video, 0, start))
    return training, held_out


def choose_held_out(
    lengths: Int64[np.ndarray, " videos"], gaps: Int64[np.ndarray, " videos"], pairs: int
) -> tuple[list[int], bool]:
    """Choose the videos that `pairs` held-out pairs come from; see `split_held_out`.

    Args:
        lengths: of the videos, in frames.
        gaps: the distance of a pair's frames in each video.
        pairs: that will be held out.

    Returns:
        the numbers of these videos, ascending, and whether they are set aside as a whole or with their last tenth.
    """
    whole = len(lengths) >= 10 * pairs
    candidates = np.flatnonzero(lengths >= (1 if whole else 10) * (gaps + 1))
    return candidates[evenly_spaced(min(pairs, len(candidates)), len(candidates))].tolist(), whole
