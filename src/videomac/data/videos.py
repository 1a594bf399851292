"""Folders of videos: files and folders of frames, found, opened cheaply and read frame by frame, exactly.

A `Video` knows its length without having been decoded and holds no open file, so a list of them is cheap to send to the
workers of a data loader. Frames are numbered from 0 in the order in which they are shown.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol

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
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from videomac.data.transforms import resize_short_side
from videomac.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm")
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
DEFAULT_FPS = 24.0

logger = logging.getLogger(__name__)


class VideoError(Exception):
    """A video that cannot be opened or decoded; the message is "<path>: <reason>"."""


class Video(Protocol):
    """What the rest of the package asks of a video."""

    @property
    def name(self) -> str:
        """The path below the folder that was searched, with forward slashes."""

    @property
    def fps(self) -> float:
        """Frames per second."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the frames with these numbers, in this order (channels-last in memory).

        Raises:
            VideoError: a frame cannot be read, or the frames differ in size.
            IndexError: a number is outside 0..len - 1.
        """


# ----------------------------------------------------------------------------------------------------------------------
# Video files


class VideoFile:
    """A video file, read with PyAV.

    The constructor reads the header only where that can be trusted for the number of frames (mp4 and mov); any other
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
        with _opened(self.path) as (container, stream):
            self.fps = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            num_frames = _frames_by_header(container, stream)
        self._num_frames = num_frames if num_frames is not None else len(_packet_index(*_version(self.path)))
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
        _check_indices(indices, self)
        index = _packet_index(*_version(self.path))
        if max(indices) >= len(index):
            raise VideoError(
                f"{self.path}: ends after {len(index)} of the {len(self)} frames that its header announces"
            )
        slots: dict[int, list[int]] = {}
        for slot, number in enumerate(indices):
            slots.setdefault(number, []).append(slot)
        pixels: np.ndarray | None = None
        with _opened(self.path) as (container, stream):
            for number, picture in _decode(container, stream, index, sorted(slots)):
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
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, decoding in this thread; whatever FFmpeg says becomes a VideoError."""
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
        raise VideoError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


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


def _version(path: Path) -> tuple[Path, int]:
    """The path and the time of its last change, so that what is remembered about it is not older than itself."""
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise VideoError(f"{path}: {_reason(error)}") from error


@lru_cache(maxsize=256)  # some 250 bytes per second of video; the cap matters for thousands of long recordings
def _packet_index(path: Path, version: int) -> _PacketIndex:
    """Read the packets of a file, without decoding them."""
    times: list[int | None] = []
    keys: list[int] = []
    with _opened(path) as (container, stream):
        codec, reorders = stream.codec_context.name, stream.codec_context.has_b_frames
        # AVI stores no presentation times. Where FFmpeg could not work them out it gives decoding times, which ascend.
        guessed = "avi" in container.format.name and reorders
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


def _decode(
    container: InputContainer, stream: VideoStream, index: _PacketIndex, numbers: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number, RGB picture [H, W, 3]) for ascending frame numbers, leaving out what cannot be decoded."""
    reformatter = VideoReformatter()
    for number, frame in _decode_frames(container, stream, index, numbers):
        if frame.is_corrupt:
            continue
        # One thread: PyAV would start a pool for every small picture.
        picture = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        yield number, np.rot90(picture, round(frame.rotation / 90))


def _decode_frames(
    container: InputContainer, stream: VideoStream, index: _PacketIndex, numbers: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    times = index.times
    if times is None:
        yield from _decode_by_counting(container, stream, numbers)
        return
    context = stream.codec_context
    # Pictures that no other picture refers to and nobody asked for need not be decoded; these decoders heed the request
    # packet by packet (dav1d does not).
    skip: Literal["NONREF", "DEFAULT"] = "NONREF" if context.name in ("h264", "hevc") else "DEFAULT"
    key_of = np.searchsorted(index.key_times, times[list(numbers)], side="right") - 1
    for key, group in groupby(zip(key_of.tolist(), numbers, strict=True), key=lambda pair: pair[0]):
        wanted = {int(times[number]): number for _, number in group}
        unfed: set[int | None] = set(wanted)
        for packet in _packets_from_key(container, stream, index, key):
            context.skip_frame = "DEFAULT" if packet.pts in unfed else skip
            frames = packet.decode()
            unfed.discard(packet.pts)
            if not unfed:
                frames = [*frames, *context.decode(None)]  # B-frames: what the decoder still holds back
            yield from ((wanted[frame.pts], frame) for frame in frames if frame.pts in wanted)
            if not unfed:
                break


def _packets_from_key(
    container: InputContainer, stream: VideoStream, index: _PacketIndex, key: int
) -> Iterator[Packet[VideoStream]]:
    # -1, before the first key frame: what cannot be decoded from there cannot be decoded at all.
    container.seek(int(index.key_times[max(key, 0)]), stream=stream)
    return container.demux(stream)


def _decode_by_counting(
    container: InputContainer, stream: VideoStream, numbers: Sequence[int]
) -> Iterator[tuple[int, VideoFrame]]:
    wanted = set(numbers)
    for number, frame in enumerate(container.decode(stream)):
        if number in wanted:
            yield number, frame
        if number >= numbers[-1]:
            break


# ----------------------------------------------------------------------------------------------------------------------
# Folders of frames


class FrameFolder:
    """A folder whose pictures are the frames of one video, in the natural order of their names (2.jpg before 10.jpg).

    Attributes:
        path: the folder.
        name: see `Video`.
        fps: 24, since pictures do not tell.

    Raises:
        VideoError: the folder cannot be read or holds no picture.
    """

    fps = DEFAULT_FPS

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        """List the pictures in `path`, opening none; without a name it is called after the folder."""
        self.path = Path(path)
        self.name = name if name is not None else self.path.name
        self._num_frames = len(_frame_names(*_version(self.path)))
        if not self._num_frames:
            raise VideoError(f"{self.path}: holds no picture ({', '.join(FRAME_SUFFIXES)})")

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._num_frames

    def __repr__(self) -> str:
        """Name and length."""
        return f"FrameFolder({str(self.path)!r}, {len(self)} frames)"

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the pictures with these numbers; see `Video.read`."""
        _check_indices(indices, self)
        names = _frame_names(*_version(self.path))
        if max(indices) >= len(names):
            raise VideoError(f"{self.path}: holds {len(names)} pictures where there were {len(self)}")
        pictures = [_read_picture(self.path / names[number]) for number in indices]
        for number, picture in zip(indices, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise VideoError(
                    f"{self.path}: {names[number]} has {picture.shape[1]}x{picture.shape[0]} pixels where "
                    f"{names[indices[0]]} has {pictures[0].shape[1]}x{pictures[0].shape[0]}"
                )
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@lru_cache(maxsize=1024)
def _frame_names(folder: Path, version: int) -> tuple[str, ...]:
    """The names of a folder's pictures in natural order."""
    try:
        return tuple(sorted(filter(_is_frame, os.listdir(folder)), key=natural_order))
    except OSError as error:
        raise VideoError(f"{folder}: {_reason(error)}") from error


def _read_picture(path: Path) -> np.ndarray:
    """A picture as RGB [H, W, 3]: grey and palette expanded, transparency dropped, 16-bit grey reduced to 8."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip 16-bit grey values at 255
                grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.stack([grey] * 3, axis=-1)
            if image.mode == "P" and "transparency" in image.info:
                return np.asarray(image.convert("RGBA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's errors for bad files
        raise VideoError(f"{path}: {_reason(error)}") from error


# ----------------------------------------------------------------------------------------------------------------------
# Finding them


def find_videos(root: str | Path, frame_gap: int = 1, problems: list[str] | None = None) -> list[Video]:
    """Find every video below a folder: video files, folders of frames, at any depth, mixed.

    Pictures that lie together in one folder are one video. Hidden files and folders (".name") are left out, and so are
    label folders ("Annotations..." beside "JPEGImages", as in YouTube-VOS and DAVIS). Links are followed. A video that
    cannot be opened, or is too short for one pair, is reported once with its reason and skipped.

    Args:
        root: a folder, or a single video file.
        frame_gap: distance of the two frames of a pair; a video needs more frames than this (0 takes single pictures).
        problems: takes one sentence for each video that is skipped.

    Returns:
        The videos in natural order of their names, which are paths below `root`.

    Raises:
        UserError: there is no such folder, or no usable video in it.
    """
    root = Path(root)
    if root.is_file():
        candidates = [(root, root.name)]
    elif root.is_dir():
        candidates = sorted(_candidates(root), key=lambda candidate: natural_order(candidate[1]))
    else:
        raise UserError(f"no such folder or video file: {root}")
    videos: list[Video] = []
    problems = [] if problems is None else problems
    with ThreadPoolExecutor(max_workers=8) as pool:  # opening files waits for the disk, and FFmpeg releases the lock
        opened = pool.map(_open_candidate, candidates)
        for video in tqdm(opened, "Looking at videos", len(candidates), unit=" videos", delay=3, leave=False):
            if isinstance(video, VideoError):
                problems.append(str(video))
            elif len(video) <= frame_gap:
                have = "1 frame" if len(video) == 1 else f"{len(video)} frames"
                problems.append(f"{video.path}: has {have}, too few for pairs {frame_gap} apart")
            else:
                videos.append(video)
    if not videos:
        raise UserError(_nothing_found(root, candidates, problems))
    for problem in problems:
        logger.warning("skipped %s", problem)
    if problems:
        logger.warning("%d of %d videos in %s were skipped", len(problems), len(candidates), root)
    return videos


def _candidates(root: Path) -> Iterator[tuple[Path, str]]:
    """(path, name) of everything below `root` that looks like a video."""
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back
            subfolders.clear()
            continue
        visited.add(real)
        labels = [name for name in subfolders if "JPEGImages" in subfolders and name.startswith("Annotations")]
        for name in labels:
            logger.warning("left out %s: labels, not video", Path(folder, name))
        subfolders[:] = sorted(name for name in subfolders if name not in labels and not name.startswith("."))
        relative = Path(folder).relative_to(root)
        if any(map(_is_frame, files)):
            yield Path(folder), relative.as_posix() if relative.parts else root.resolve().name
        yield from ((Path(folder, name), (relative / name).as_posix()) for name in files if _is_video_file(name))


def _open_candidate(candidate: tuple[Path, str]) -> VideoFile | FrameFolder | VideoError:
    path, name = candidate
    try:
        return FrameFolder(path, name) if path.is_dir() else VideoFile(path, name)
    except VideoError as error:
        return error


def _nothing_found(root: Path, candidates: Sequence[tuple[Path, str]], problems: Sequence[str]) -> str:
    if problems:
        return f"none of the {len(candidates)} videos in {root} can be used; the first: {problems[0]}"
    wanted = f"video files ({', '.join(VIDEO_SUFFIXES)}) and folders of frames ({', '.join(FRAME_SUFFIXES)})"
    suffixes = sorted({path.suffix.lower() for path in root.rglob("*") if path.is_file() and path.suffix})
    found = f"only files of type {', '.join(suffixes[:8])}" if suffixes else "nothing"
    return f"no video in {root}: looked for {wanted} at any depth and found {found}"


def _is_video_file(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(VIDEO_SUFFIXES)


def _is_frame(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(FRAME_SUFFIXES)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that takes runs of digits as numbers: "2.jpg" < "10.jpg"; equal ones ("1", "01") by their letters."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], name


def _check_indices(indices: Sequence[int], video: VideoFile | FrameFolder | MemoryVideo) -> None:
    if not len(indices):
        raise ValueError(f"no frames asked for of {video}")
    if min(indices) < 0 or max(indices) >= len(video):
        raise IndexError(f"frames {min(indices)} to {max(indices)} asked for of {video}")


# ----------------------------------------------------------------------------------------------------------------------
# Choosing and caching


def select_hours(videos: Sequence[Video], hours: float, seed: int = 0) -> list[Video]:
    """Take whole videos at random until they add up to so many hours (the paper cuts Kinetics down to 5.58 hours).

    Which ones depends on the seed and the names alone, not on the order in which they are given; they are returned in
    that order. The last video taken may exceed the hours. If there is less, everything is returned, with a notice.

    Raises:
        UserError: `hours` is not positive.
    """
    if not hours > 0:
        raise UserError(f"hours must be positive, not {hours}")
    drawn = sorted(videos, key=lambda video: hashlib.sha256(f"{seed}/{video.name}".encode()).digest())
    taken: set[str] = set()
    total = 0.0
    for video in drawn:
        if total >= hours:
            break
        taken.add(video.name)
        total += len(video) / video.fps / 3600
    if total < hours:
        logger.warning("%.2f hours of video were asked for and there are %.2f: all of it is used", hours, total)
    return [video for video in videos if video.name in taken]


class MemoryVideo:
    """A video decoded once into shared memory, which the workers of a data loader read without copying it.

    Attributes:
        name: see `Video`.
        fps: see `Video`.
    """

    def __init__(self, name: str, fps: float, memory: Tensor, start: int, shape: tuple[int, int, int, int]) -> None:
        """Lie at `start` in the flat uint8 tensor `memory`, as [frames, height, width, 3]."""
        self.name, self.fps = name, fps
        # Videos share few large tensors, because each one costs every worker an open file.
        self._memory, self._start, self._shape = memory, start, shape

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._shape[0]

    def __repr__(self) -> str:
        """Name and length."""
        return f"MemoryVideo({self.name!r}, {len(self)} frames)"

    @property
    def pixels(self) -> UInt8[Tensor, "frames height width 3"]:
        """The frames themselves, not a copy."""
        return self._memory[self._start : self._start + int(np.prod(self._shape))].view(self._shape)

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Copy the frames with these numbers; see `Video.read`."""
        _check_indices(indices, self)
        # Indexing with a list would copy byte by byte, 16 times slower.
        return self.pixels.index_select(0, torch.tensor(indices)).permute(0, 3, 1, 2)


def cache_in_memory(videos: Sequence[Video], gib: float, short_side: int | None = None) -> list[Video]:
    """Decode videos into shared memory, in the given order, as long as they fit; the rest stays as it is.

    A video that cannot be decoded to its end stays as it is, too: its readable pairs are still good.

    Args:
        videos: what `find_videos` returned.
        gib: memory to use at most, in GiB; a minute of 256x456 video at 24 frames per second takes 0.47.
        short_side: shrink frames whose shorter side is longer than this many pixels; without it they keep their size.

    Returns:
        As many videos, in the same order and with the same names.
    """
    pool: _SharedPool | None = _SharedPool(int(gib * 2**30))
    cached: list[Video] = []
    for video in tqdm(videos, "Decoding into memory", unit=" videos", delay=3, leave=False):
        if pool is None:
            cached.append(video)
            continue
        try:
            cached.append(_into_memory(video, pool, short_side))
        except VideoError as error:
            logger.warning("not kept in memory: %s", error)
            cached.append(video)
        except MemoryError as error:
            logger.warning("the first %d of %d videos are kept in memory: %s", len(cached), len(videos), error)
            pool = None
            cached.append(video)
    return cached


_BYTES_AT_ONCE = 2**28


class _SharedPool:
    """Hands out shared memory: large videos get their own, small ones lie together in chunks of 1/16 of the whole.

    Each allocation is an open file in every worker, so there must be few (here 80 at most).
    """

    def __init__(self, size: int) -> None:
        self._free, self._chunk_size = size, size // 16
        self._chunk, self._used = torch.empty(0, dtype=torch.uint8), 0

    def take(self, size: int) -> tuple[Tensor, int]:
        """Take `size` bytes as (flat tensor, start); MemoryError if they exceed what is left."""
        if size > self._chunk_size // 4:
            return self._allocate(size), 0
        if size > len(self._chunk) - self._used:
            self._chunk, self._used = self._allocate(max(size, min(self._chunk_size, self._free))), 0
        self._used += size
        return self._chunk, self._used - size

    def _allocate(self, size: int) -> Tensor:
        if size > self._free:
            raise MemoryError("the rest does not fit and is read from disk")
        try:
            memory: Tensor = torch.empty(size, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise MemoryError(f"the system gives no more, so the rest is read from disk ({error})") from error
        self._free -= size
        return memory


def _into_memory(video: Video, pool: _SharedPool, short_side: int | None) -> MemoryVideo:
    def shrunk(frames: Tensor) -> Tensor:
        if short_side is not None and min(frames.shape[-2:]) > short_side:
            frames = resize_short_side(frames, short_side)
        return frames.permute(0, 2, 3, 1)

    sample = video.read([0])
    shape = (len(video), *shrunk(sample).shape[1:])
    memory, start = pool.take(int(np.prod(shape)))
    cached = MemoryVideo(video.name, video.fps, memory, start, shape)
    at_once = max(1, _BYTES_AT_ONCE // sample.numel())
    for first in range(0, len(video), at_once):
        last = min(first + at_once, len(video))
        frames = shrunk(video.read(range(first, last)))
        if frames.shape[1:] != shape[1:]:
            raise VideoError(f"{video.name}: the frame size changes within the video, before frame {last}")
        cached.pixels[first:last] = frames
    return cached
