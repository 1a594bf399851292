"""The part of a video that is labelled: opened, checked, and read in either direction without holding it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from videomac.data.discovery import find_videos
from videomac.data.frame_folder import FrameFolder, is_frame, natural_order
from videomac.data.video import Video, VideoError
from videomac.errors import UserError

BYTES_AT_ONCE = 96 * 2**20
"""Decoded frames that are held at once: enough that going back to a key frame pays, whatever the video's length."""


def open_video(path: Path) -> Video:
    """The one video at a path.

    Raises:
        UserError: there is none, or there are several.
    """
    videos = find_videos(path, frame_gap=0)
    if len(videos) > 1:
        raise UserError(f"{path} holds {len(videos)} videos, such as {videos[0].name}: name one of them")
    return videos[0]


def picture_names(video: Video) -> list[str]:
    """Names of the pictures of a folder of frames, in order; none for a file."""
    if not isinstance(video, FrameFolder):
        return []
    return sorted(filter(is_frame, os.listdir(video.path)), key=natural_order)


def frame_size(video: Video, frame: int = 0) -> tuple[int, int]:
    """(height, width) of a video, from one of its frames.

    Raises:
        UserError: the frame cannot be read.
    """
    try:
        height, width = video.read([frame]).shape[-2:]
    except VideoError as error:
        raise UserError(
            f"frame {frame}, which is needed first, cannot be read ({error}): pass another --start"
        ) from error
    return int(height), int(width)


def chosen_frames(length: int, start: int, stop: int | None, every: int, labelled: Sequence[int] = ()) -> list[int]:
    """The numbers of the frames that are wanted, ascending: every so-manieth of the part, and the labelled ones.

    Raises:
        UserError: the part lies beyond the video.
    """
    stop = length if stop is None else stop
    if start >= length or stop > length:
        raise UserError(f"the video has frames 0 to {length - 1}: --start {start} and --stop {stop} lie beyond it")
    return sorted({*range(start, stop, every), *labelled})


def read_frames(
    video: Video, numbers: Sequence[int], size: tuple[int, int]
) -> Iterator[tuple[int, UInt8[Tensor, "3 height width"]]]:
    """Yield (number, frame) in the given order, descending or ascending.

    Args:
        video: to read.
        numbers: of the frames.
        size: (height, width) that all frames must have.

    Raises:
        VideoError: a frame cannot be read or has another size; all frames before it, in this order, have been yielded.
    """
    at_once = max(1, min(64, BYTES_AT_ONCE // (3 * size[0] * size[1])))
    for first in range(0, len(numbers), at_once):
        wanted = numbers[first : first + at_once]
        try:
            frames = list(video.read(wanted))
        except VideoError:  # find the frame; those before it are good
            for number in wanted:
                yield number, _checked(video.read([number])[0], number, size, video)
            continue
        for number, frame in zip(wanted, frames, strict=True):
            yield number, _checked(frame, number, size, video)


def _checked(frame: Tensor, number: int, size: tuple[int, int], video: Video) -> Tensor:
    if tuple(frame.shape[-2:]) != size:
        found = f"{frame.shape[-1]}x{frame.shape[-2]}"
        raise VideoError(f"{video.name}: the size changes from {size[1]}x{size[0]} to {found} at frame {number}")
    return frame
