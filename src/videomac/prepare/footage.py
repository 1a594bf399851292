"""A source of footage, read once from its first frame to its last, whatever happens in between."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from videomac.data.frame_folder import FrameFolder
from videomac.data.video import DEFAULT_FPS, VideoError, reason
from videomac.data.video_file import frame_rate, opened


@dataclass(frozen=True)
class Shown:
    """A decoded frame.

    Attributes:
        frame: as the decoder gives it, not yet turned upright.
        seconds: from the first frame of the source.
        after_gap: something between this frame and the one before could not be read.
    """

    frame: VideoFrame
    seconds: float
    after_gap: bool


class Footage:
    """Frames of a video file or a folder of frames, in order, and what could not be read of them.

    Attributes:
        path: the source.
        rate: frames per second, known from the first frame on.
        duration: seconds, as far as the header tells; 0 if it does not. Known from the first frame on.
        problem: what was wrong, in a few words; None if nothing was.
        passing: the problem was the system's and may pass (a disk or network that did not answer).
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self.path = path
        self.rate, self.duration = Fraction(DEFAULT_FPS), 0.0
        self.problem: str | None = None
        self.passing = False
        self._gap = False

    def __iter__(self) -> Iterator[Shown]:
        """Yield what can be read; the rest becomes `problem`, never an error."""
        try:
            yield from self._of_folder() if self.path.is_dir() else self._of_file()
        except VideoError as error:
            self._note(error)

    def _of_folder(self) -> Iterator[Shown]:
        video = FrameFolder(self.path)
        self.duration = len(video) / video.fps
        for number in range(len(video)):
            try:
                picture = video.read([number])[0]
            except VideoError as error:
                self._note(error)
                continue
            frame = VideoFrame.from_ndarray(picture.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            yield self._shown(frame, number / video.fps)

    def _of_file(self) -> Iterator[Shown]:
        with opened(self.path) as (container, stream):
            self.rate = Fraction(frame_rate(stream)).limit_denominator(1001)
            self.duration = (container.duration or 0) / av.time_base
            if missing := _beyond_the_end(container, stream):
                self.problem = f"is truncated: the last {missing} of {len(stream.index_entries)} frames are not there"
            first: float | None = None
            for number, frame in enumerate(self._decoded(container, stream)):
                time = frame.time if frame.time is not None else number / float(self.rate)
                first = time if first is None else first
                yield self._shown(frame, time - first)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Decode all packets; from one that is damaged to the next key frame is a gap.

        What a decoder makes of half a packet, or without the frame that others refer to, may differ from run to run.
        """
        whole, begun = True, False
        for packet in self._packets(container, stream):
            whole = whole or packet is None or packet.is_keyframe or not packet.size
            if not whole:
                continue
            try:
                if packet is not None and packet.is_corrupt:
                    raise ValueError("damaged frames")
                frames = packet.decode() if packet is not None else stream.decode(None)
            except (av.FFmpegError, ValueError) as error:
                self._note(error)
                whole = False
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self._note(ValueError("damaged frames"))
                    whole = not begun  # what a recording begins with may refer to what is not there
                elif whole:
                    begun = True
                    yield frame

    def _packets(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream] | None]:
        packets = container.demux(stream)  # ends with an empty packet, which makes the decoder give what it holds back
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self._note(error)
                yield None
                return
            if packet is None:
                return
            yield packet

    def _shown(self, frame: VideoFrame, seconds: float) -> Shown:
        gap, self._gap = self._gap, False
        return Shown(frame, seconds, gap)

    def _note(self, error: Exception) -> None:
        self._gap = True
        if self.problem is None:
            self.problem = reason(error).removeprefix(f"{self.path}: ")
        cause = error.__cause__ if isinstance(error, VideoError) else error
        # FFmpeg's own errors have numbers far beyond those of the system.
        self.passing |= isinstance(cause, OSError) and cause.errno in errno.errorcode and cause.errno != errno.EINVAL


def _beyond_the_end(container: InputContainer, stream: VideoStream) -> int:
    """Frames that an mp4 or mov lists and whose bytes are missing at its end."""
    if "mp4" not in container.format.name:
        return 0
    return sum(entry.pos + entry.size > container.size for entry in stream.index_entries)
