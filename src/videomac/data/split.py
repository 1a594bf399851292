"""Set videos, or ends of videos, aside that are never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
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
    whole = len(videos) >= 10 * pairs
    gap = FrameGap(frame_gap)
    share = 1 if whole else 10
    candidates = [index for index, video in enumerate(videos) if len(video) >= share * (gap.frames(video.fps) + 1)]
    count = min(pairs, len(candidates))
    chosen = {candidates[index] for index in evenly_spaced(count, len(candidates))}
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
