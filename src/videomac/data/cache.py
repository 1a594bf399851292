"""Videos decoded once into shared memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from videomac.data.transforms import resize_short_side
from videomac.data.video import Video, VideoError, check_indices

logger = logging.getLogger(__name__)


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
        check_indices(indices, self)
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
