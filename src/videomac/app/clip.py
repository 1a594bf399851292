"""The clip that somebody has opened, with frames at hand for scrubbing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from videomac.data.discovery import VIDEO_SUFFIXES
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.labeling.frames import frame_size, open_video

AT_ONCE = 16
"""Frames that are decoded together: the way from the key frame is the same for all of them."""
MOST_BYTES = 128 * 2**20
"""Decoded frames that stay in memory."""


class Clip:
    """A video whose frames around the latest one stay in memory.

    Attributes:
        path: file or folder of frames.
        name: for people.
        video: the video.
        size: (height, width).

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, path: Path, name: str, video: VideoFile | None = None) -> None:
        self.path, self.name = path, name
        self.video = open_video(path) if video is None else video
        self.size = frame_size(self.video)
        self._frames: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def uploaded(cls, path: Path, name: str) -> Clip:
        """A file from a browser, at a path that the browser did not choose.

        Raises:
            UserError: it is no video that can be read; the sentence has the browser's name of it.
        """
        try:
            return cls(path, name, VideoFile(path, name))
        except (VideoError, UserError) as error:
            said = str(error.__cause__ if isinstance(error, UserError) and error.__cause__ else error)
            reason = said.replace(f"{path}: ", "").replace(str(path), name)
            raise UserError(f"{name} cannot be read ({reason}): convert it, for example to mp4") from None

    @staticmethod
    def suffix_of(name: str) -> str:
        """The suffix of a file name from a browser, of which nothing else is used.

        Raises:
            UserError: it is none of a video.
        """
        suffix = Path(name).suffix.lower()
        if suffix not in VIDEO_SUFFIXES:
            raise UserError(f"{name} is no video: choose a file such as .mp4, .mov, .avi, .mkv or .webm")
        return suffix

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.video)

    def frame(self, number: int) -> UInt8[Tensor, "3 height width"]:
        """One frame.

        Raises:
            UserError: it cannot be read.
        """
        with self._lock:
            if number not in self._frames:
                self._decode(number)
            self._frames.move_to_end(number)
            return self._frames[number]

    def _decode(self, number: int) -> None:
        first = number - number % AT_ONCE
        at_once = range(first, min(first + AT_ONCE, len(self)))
        try:
            frames = dict(zip(at_once, self.video.read(at_once), strict=True))
        except VideoError:
            try:
                frames = {number: self.video.read([number])[0]}
            except VideoError as error:
                reason = str(error).replace(str(self.path), self.name)
                raise UserError(f"frame {number} cannot be read ({reason}): the frames before it can be used") from None
        self._frames.update(frames)
        while len(self._frames) > AT_ONCE and len(self._frames) * 3 * self.size[0] * self.size[1] > MOST_BYTES:
            self._frames.popitem(last=False)
