"""Video files, read frame by frame, exactly, with PyAV."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, dropwhile, groupby
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from av.codec.context import ThreadType
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from torch import Tensor

from videomac.data.video import DEFAULT_FPS, VideoError, check_indices, reason, version

logger = logging.getLogger(__name__)
MOST_FPS = 1000
"""Frames per second that a header may claim."""


class VideoFile:
    """A video file, read with PyAV.

    The constructor reads the header only where that can be trusted for the number of frames (mp4, mov, 3gp); any other
    container is read through once, without decoding. `read` goes to the key frame before the frame it wants and decodes
    from there; which time stamp belongs to which frame number comes from one pass over the file's packets, kept for the
    most recently used files of this process. Frames are turned upright where the file says how; pixels count as square.

    Attributes:
        path: the file.
        name: see `Video`.
        fps: average frames per second, by the header.

    Raises:
        VideoError: the file cannot be opened or holds no frame.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        """Read the header of `path`; without a name it is called after the file."""
        self.path = Path(path)
        self.name = name if name is not None else self.path.name
        with opened(self.path) as (container, stream):
            self.fps = frame_rate(stream)
            num_frames = _frames_by_header(container, stream)
        self._num_frames = num_frames if num_frames is not None else len(_packet_index(*version(self.path)))
        if not self._num_frames:
            raise VideoError(f"{self.path}: holds no frame")

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._num_frames

    def __repr__(self) -> str:
        """Name and length."""
        return f"VideoFile({str(self.path)!r}, {len(self)} frames)"

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the frames with these numbers; see `Video.read`. Several numbers of one stretch share its decoding."""
        check_indices(indices, self)
        index = _packet_index(*version(self.path))
        if max(indices) >= len(index):
            raise VideoError(
                f"{self.path}: ends after {len(index)} of the {len(self)} frames that its header announces"
            )
        slots: dict[int, list[int]] = {}
        for slot, number in enumerate(indices):
            slots.setdefault(number, []).append(slot)
        pixels: np.ndarray | None = None
        for number, picture in _pictures(self.path, index, sorted(slots)):
            if pixels is None:
                pixels = np.empty((len(indices), *picture.shape), dtype=np.uint8)
            if picture.shape != pixels.shape[1:]:
                raise VideoError(f"{self.path}: the frame size changes within the video, at frame {number}")
            for slot in slots.pop(number):
                pixels[slot] = picture
        if slots or pixels is None:
            raise VideoError(f"{self.path}: frame {min(slots)} of {len(self)} cannot be decoded")
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _PacketIndex:
    """Where the frames of a file are: the outcome of reading its packets once.

    Attributes:
        num_frames: packets that show a frame.
        times: their presentation time stamps, ascending, in the stream's unit; None if the container has none that can
            be relied on. Then frames can only be found by counting from the start.
        key_times: presentation time stamps of the key frames, ascending.
    """

    num_frames: int
    times: np.ndarray | None
    key_times: np.ndarray

    def __len__(self) -> int:
        return self.num_frames


# Titles that are not UTF-8 must not matter; PyAV from 19 on sees to it itself.
_LENIENT: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, decoding in this thread; whatever FFmpeg says becomes a VideoError."""
    if not path.is_file():  # a pipe would never end
        raise VideoError(f"{path}: does not exist or is not a file")
    try:
        # An absolute path, because "12:30.mp4" alone would be taken for a protocol.
        with av.open(os.path.abspath(path), **_LENIENT) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream) or stream.codec_context is None:
                raise VideoError(f"{path}: holds no video that can be decoded")
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = ThreadType.NONE
            yield container, stream
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"{path}: {reason(error)}") from error


def frame_rate(stream: VideoStream) -> float:
    """Frames per second by the header, or 24 where it does not say."""
    rates = (float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate)
    # DV files give the ticks of their clock in place of their frames.
    return next((rate for rate in rates if rate <= MOST_FPS), DEFAULT_FPS)


def _frames_by_header(container: InputContainer, stream: VideoStream) -> int | None:
    """The number of frames if the header lists every one (mp4 and mov that are not fragmented), else None.

    Frames that an edit list hides do not count, nor those beyond the end of a truncated file.
    """
    if "mp4" not in container.format.name or not stream.frames:
        return None
    entries = stream.index_entries
    if not len(entries):
        return None
    shown = [entry.pos + entry.size for entry in entries if not entry.is_discard]
    present = sum(end <= container.size for end in shown)
    if present < len(shown):
        logger.warning("%s: is truncated, %d of its %d frames are there", container.name, present, len(shown))
    return present


@lru_cache(maxsize=256)  # some 250 bytes per second of video; the cap matters for thousands of long recordings
def _packet_index(path: Path, version: int) -> _PacketIndex:
    """Read the packets of a file, without decoding them."""
    times: list[int | None] = []
    keys: list[int] = []
    with opened(path) as (container, stream):
        codec, reorders = stream.codec_context.name, stream.codec_context.has_b_frames
        # These store no presentation times. Where FFmpeg could not work them out it gives decoding times, which ascend.
        guessed = bool({"avi", "mxf"} & set(container.format.name.split(","))) and reorders
        for packet in _packets(container, stream):
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
            if _shows_a_frame(packet, codec):
                times.append(packet.pts)
    ordered = None
    if keys and None not in times and len(set(times)) == len(times):
        ordered = np.array(times, dtype=np.int64)
        ordered = None if guessed and bool((np.diff(ordered) > 0).all()) else np.sort(ordered)
    return _PacketIndex(len(times), ordered, np.sort(np.array(keys, dtype=np.int64)))


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """All packets up to the end or, in a damaged file, up to the damage."""
    packets = container.demux(stream)
    try:
        yield from (packet for packet in packets if packet.size)
    except av.FFmpegError as error:
        logger.debug("%s: reading stopped: %s", container.name, error)


def _shows_a_frame(packet: Packet[VideoStream], codec: str) -> bool:
    if packet.is_discard or packet.is_corrupt:
        return False
    # VP8 keeps pictures that are only ever referred to in packets of their own; the bit says whether it is shown.
    return codec != "vp8" or bool(bytes(packet)[0] & 0x10)


def _pictures(path: Path, index: _PacketIndex, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, RGB picture [H, W, 3]) for ascending frame numbers, leaving out what cannot be decoded."""
    reformatter = VideoReformatter()
    for number, frame in _frames(path, index, numbers):
        if frame.is_corrupt:
            continue
        # One thread: PyAV would start a pool for every small picture.
        picture = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        yield number, np.rot90(picture, round(frame.rotation / 90))


class _NotSearchable(Exception):
    """A container in which a key frame cannot be found by its time."""


def _frames(path: Path, index: _PacketIndex, numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Yield frames from their key frames on, or, where these cannot be found, from the start of the file on."""
    left = list(numbers)
    if index.times is not None:
        with opened(path) as (container, stream), suppress(_NotSearchable):
            for number, frame in _decode_from_keys(container, stream, index.times, index.key_times, numbers):
                left.remove(number)
                yield number, frame
            return
    with opened(path) as (container, stream):
        yield from _decode_by_counting(container, stream, left)


def _decode_from_keys(
    container: InputContainer, stream: VideoStream, times: np.ndarray, key_times: np.ndarray, numbers: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    context = stream.codec_context
    # Pictures that no other picture refers to and nobody asked for need not be decoded; these decoders heed the request
    # packet by packet (dav1d does not).
    skip: Literal["NONREF", "DEFAULT"] = "NONREF" if context.name in ("h264", "hevc") else "DEFAULT"
    key_of = np.searchsorted(key_times, times[list(numbers)], side="right") - 1
    for key, group in groupby(zip(key_of.tolist(), numbers, strict=True), key=lambda pair: pair[0]):
        wanted = {int(times[number]): number for _, number in group}
        unfed: set[int | None] = set(wanted)
        for packet in _packets_from_key(container, stream, key_times, key):
            context.skip_frame = "DEFAULT" if packet.pts in unfed else skip
            frames = packet.decode()
            unfed.discard(packet.pts)
            if not unfed:
                frames = [*frames, *context.decode(None)]  # B-frames: what the decoder still holds back
            yield from ((wanted[frame.pts], frame) for frame in frames if frame.pts in wanted)
            if not unfed:
                break


def _packets_from_key(
    container: InputContainer, stream: VideoStream, key_times: np.ndarray, key: int
) -> Iterator[Packet[VideoStream]]:
    """The packets from a key frame, or an earlier one, on.

    Containers without a list of their frames (MPEG transport and program streams, ASF) are searched, and the search may
    end behind the frame: then it is repeated for earlier and earlier ones.

    Raises:
        _NotSearchable: none of them is found.
    """
    key = max(key, 0)  # -1, before the first key frame: what cannot be decoded from there cannot be decoded at all
    for back in (0, 1, 2, 4, 8, 16, 32, 64):
        with suppress(av.FFmpegError):
            container.seek(int(key_times[max(key - back, 0)]), stream=stream)
            packets = _from_key_on(container.demux(stream))
            first = next(packets, None)
            if first is not None and first.pts in key_times[: key + 1]:
                return chain([first], packets)
    raise _NotSearchable


def _from_key_on(packets: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    """Drop what stands before the first key frame, which would be decoded to something else than in a row."""
    return dropwhile(lambda packet: not packet.is_keyframe or packet.pts is None, packets)


def _decode_by_counting(
    container: InputContainer, stream: VideoStream, numbers: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    wanted = set(numbers)
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            yield number, frame
        if number >= numbers[-1]:
            break
