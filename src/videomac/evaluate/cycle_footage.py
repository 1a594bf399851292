"""Clips of footage without labels, and what comes of them when pieces are planted."""

from __future__ import annotations

import logging
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from videomac.data.discovery import find_videos
from videomac.data.transforms import resize_short_side
from videomac.data.video import Video, VideoError
from videomac.errors import UserError
from videomac.evaluate.cycle_clips import Planted, plant
from videomac.utils.frame_gap import FrameGap
from videomac.utils.spacing import evenly_spaced

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """Some frames of a video.

    Attributes:
        video: it is from.
        numbers: of the frames.
    """

    video: Video
    numbers: list[int]

    @property
    def name(self) -> str:
        """Video, first and last frame."""
        return f"{self.video.name}, frames {self.numbers[0]} to {self.numbers[-1]}"


def choose_clips(data: Path, num_clips: int, frames: int, frame_gap: int | str, cure: str) -> list[Clip]:
    """Clips spread evenly over the videos and within each.

    Args:
        data: folder of videos, or one video.
        num_clips: how many clips; fewer where the videos are too short for so many.
        frames: of a clip.
        frame_gap: distance of a clip's frames, in frames or as a time.
        cure: what to do if no video is long enough.

    Raises:
        UserError: no video, none that is long enough, or room for one clip only.
    """
    videos = find_videos(data, frame_gap)
    gap = FrameGap(frame_gap)
    spans = [gap.frames(video.fps) * (frames - 1) + 1 for video in videos]
    fitting = [(video, span) for video, span in zip(videos, spans, strict=True) if len(video) >= span]
    if not fitting:
        raise UserError(
            f"no video in {data} is long enough for {frames} frames {frame_gap} apart: the longest has "
            f"{max(map(len, videos))} frames; {cure}"
        )
    chosen = [fitting[index] for index in evenly_spaced(min(num_clips, len(fitting)), len(fitting))]
    clips = []
    for number, (video, span) in enumerate(chosen):
        share = num_clips // len(chosen) + (number < num_clips % len(chosen))
        starts = dict.fromkeys(evenly_spaced(share, len(video) - span + 1))  # a short video has fewer
        step = (span - 1) // (frames - 1)
        clips += [Clip(video, list(range(start, start + span, step))) for start in starts]
    if len(clips) < 2:
        raise UserError(f"{data} has room for one clip, and pieces of one go into another: add videos")
    return clips


def planted_clips(
    clips: Sequence[Clip], short_side: int, without: Container[str] = ()
) -> Iterator[tuple[Clip, Planted]]:
    """Each clip with pieces of the one half the list away; one that cannot be read is left out.

    Args:
        clips: all of them, for a clip's place among them decides what is planted in it.
        short_side: of the frames, in pixels.
        without: names of clips to pass over.
    """
    for number, clip in enumerate(tqdm(clips, "cycles", unit=" clips", disable=not sys.stderr.isatty())):
        if clip.name in without:
            continue
        pair = clip, clips[(number + len(clips) // 2) % len(clips)]
        try:
            frames, other = (resize_short_side(one.video.read(one.numbers), short_side) for one in pair)
        except VideoError as error:
            logger.warning("left out %s: %s", clip.name, error)
            continue
        yield clip, plant(frames, other, seed=number)


def same_footage(one: Path, other: Path) -> bool:
    """Whether two folders of videos are the same, or one holds the other."""
    one, other = one.resolve(), other.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)
