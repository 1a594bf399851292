"""A folder of prepared clips, known from its manifest alone: no clip is opened before its frames are asked for."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from videomac.data.cache import cache_in_memory
from videomac.data.discovery import Skipped
from videomac.data.manifest import MANIFEST, manifest_settings, read_manifest
from videomac.data.split import Excerpt, choose_held_out
from videomac.data.video import Video, VideoError, check_indices, reason
from videomac.data.video_file import opened
from videomac.errors import UserError
from videomac.utils.frame_gap import FrameGap

logger = logging.getLogger(__name__)


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds clips of `videomac prepare`."""
    return (folder / MANIFEST).is_file()


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """A clip, of which its row in the manifest is known; a `Video`.

    Attributes:
        path: the file.
        num_frames: by the manifest.
        fps: frames per second.
        size: bytes of the file, by the manifest.
        gop: frames from one key frame to the next.
    """

    path: Path
    num_frames: int
    fps: float
    size: int
    gop: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.num_frames

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the frames with these numbers; see `Video.read`.

        From the key frame before the first one on, and on into the next group where frames are wanted there; a group
        in which none is wanted is passed over.
        """
        check_indices(indices, self)
        pictures: dict[int, np.ndarray] = {}
        reformatter = VideoReformatter()
        self._require_same_size()
        with opened(self.path) as (container, stream):
            for number, frame in self._frames(container, stream, sorted(set(indices))):
                # One thread: PyAV would start a pool for every small picture.
                pictures[number] = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        if missing := set(indices) - pictures.keys():
            raise VideoError(f"{self.path}: frame {min(missing)} of {len(self)} cannot be decoded")
        return torch.from_numpy(np.stack([pictures[number] for number in indices])).permute(0, 3, 1, 2)

    def _require_same_size(self) -> None:
        try:
            size = os.stat(self.path).st_size
        except OSError as error:
            raise VideoError(f"{self.path}: {reason(error)}, but stands in {MANIFEST}; {_CURE}") from error
        if size != self.size:
            raise VideoError(
                f"{self.path}: has {size} bytes, and {self.size} by {MANIFEST}, so it was replaced; {_CURE}"
            )

    def _frames(
        self, container: InputContainer, stream: VideoStream, numbers: Sequence[int]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (number, frame) for ascending numbers; the file's own index says at which time each is shown."""
        entries = stream.index_entries
        # Of frames that are stored in the order in which they are shown, the k-th entry is frame k.
        if len(entries) != len(self) or stream.codec_context.has_b_frames:
            raise VideoError(f"{self.path}: is not the clip of {len(self)} frames that {MANIFEST} tells of; {_CURE}")
        for run in _runs(numbers, self.gop):
            first, last = run[0] // self.gop * self.gop, run[-1]
            times = {entries[number].timestamp: number for number in run}
            if not entries[first].is_keyframe:
                raise VideoError(f"{self.path}: has no key frame at frame {first}; {_CURE}")
            container.seek(entries[first].timestamp, stream=stream)
            decoder = stream.codec_context
            for _, packet in zip(range(first, last + 1), container.demux(stream), strict=False):
                yield from ((times[frame.pts], frame) for frame in packet.decode() if frame.pts in times)
            yield from ((times[frame.pts], frame) for frame in decoder.decode(None) if frame.pts in times)


_CURE = "run `videomac prepare` again, or with --check to see what else has changed"


def _runs(numbers: Sequence[int], gop: int) -> Iterator[list[int]]:
    """Cut ascending frame numbers where decoding on to the next one would go through a whole group for nothing."""
    run = [numbers[0]]
    for before, number in pairwise(numbers):
        if number // gop > before // gop + 1:
            yield run
            run = []
        run.append(number)
    yield run


class PreparedClips(Sequence[Video]):
    """The clips of a prepared folder, as a sequence of videos that are made when they are asked for.

    Attributes:
        folder: where they lie.
        frames: number of frames of each that may be used, from its first one on.
        fps: frames per second of each.
        gop: frames from one key frame to the next.
    """

    def __init__(self, folder: Path, table: pa.Table) -> None:
        """Take what a manifest says; see `read`."""
        self.folder, self.gop = folder, int(manifest_settings(table)["gop"])
        self._names = table["name"].combine_chunks()
        self._lengths: Int64[np.ndarray, " clips"] = table["frames"].to_numpy().astype(np.int64)
        self._sizes, self.fps = table["bytes"].to_numpy(), table["fps"].to_numpy()
        self.frames = self._lengths
        self._in_memory: dict[int, Video] = {}

    @classmethod
    def read(cls, folder: Path) -> PreparedClips:
        """Read a folder's manifest, and open nothing else.

        Raises:
            UserError: it is damaged.
        """
        return cls(folder, read_manifest(folder).select(["name", "frames", "fps", "bytes"]))

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._lengths)

    def __getitem__(self, number: int) -> Video:  # type: ignore[override]
        """Return a clip, all of it."""
        if number in self._in_memory:
            return self._in_memory[number]
        path, frames = self.folder / self._names[number].as_py(), int(self._lengths[number])
        return PreparedClip(path, frames, float(self.fps[number]), int(self._sizes[number]), self.gop)

    def names(self) -> Iterator[str]:
        """The names, some thousands at a time, so that they do not all become objects at once."""
        for start in range(0, len(self), 2**14):
            yield from self._names.slice(start, 2**14).to_pylist()

    def identity(self) -> dict[str, Any]:
        """What must be equal for two runs on these clips to be equal, wherever they lie."""
        digest = hashlib.sha256()
        for name, frames in zip(self.names(), self._lengths.tolist(), strict=True):
            digest.update(f"{name} {frames}\n".encode())
        return {"videos": len(self), "names": digest.hexdigest(), "order": f"groups of {self.gop}"}

    def gaps(self, frame_gap: int | str) -> Int64[np.ndarray, " clips"]:
        """The distance of a pair's frames in each clip, in frames."""
        gap, (rates, which) = FrameGap(frame_gap), np.unique(self.fps, return_inverse=True)
        of_rate = np.array([gap.frames(float(rate)) for rate in rates], dtype=np.int64)
        gaps: Int64[np.ndarray, " clips"] = of_rate[which]
        return gaps

    def count_pairs(self, frame_gap: int | str) -> Int64[np.ndarray, " clips"]:
        """The number of pairs of each clip."""
        counts: Int64[np.ndarray, " clips"] = np.maximum(0, self.frames - self.gaps(frame_gap))
        return counts

    def only(self, kept: Bool[np.ndarray, " clips"]) -> PreparedClips:
        """Those of the clips that are True."""
        part = copy.copy(self)
        part._names = self._names.filter(pa.array(kept))
        part._lengths, part._sizes, part.fps, part.frames = (
            column[kept] for column in (self._lengths, self._sizes, self.fps, self.frames)
        )
        return part

    def long_enough(self, frame_gap: int | str, skipped: list[Skipped]) -> PreparedClips:
        """Those that give a pair; the others are added to `skipped`.

        Raises:
            UserError: none does.
        """
        kept = self.count_pairs(frame_gap) > 0
        if not kept.any():
            raise UserError(
                f"none of the {len(self)} clips in {self.folder / MANIFEST} has two frames {frame_gap} apart: prepare "
                "longer footage, or lower frame_gap"
            )
        if short := int(np.count_nonzero(~kept)):
            logger.warning("%d of %d clips are too short for pairs %s apart", short, len(self), frame_gap)
            names = self.only(~kept).names()
            skipped += [Skipped(name, f"too short for pairs {frame_gap} apart") for name in names]
        return self if kept.all() else self.only(kept)

    def within_hours(self, hours: float, seed: int) -> PreparedClips:
        """Clips at random until they add up to so many hours, by the rule of `select_hours`."""
        drawn = np.argsort([hashlib.sha256(f"{seed}/{name}".encode()).digest() for name in self.names()])
        before = np.cumsum((self._lengths / self.fps)[drawn]) / 3600
        if before[-1] < hours:
            logger.warning(
                "%.2f hours of video were asked for and there are %.2f: all of it is used", hours, before[-1]
            )
        kept = np.zeros(len(self), dtype=bool)
        kept[drawn[: int(np.searchsorted(before, hours)) + 1]] = True
        return self.only(kept)

    def without_held_out(self, pairs: int, frame_gap: int | str) -> tuple[PreparedClips, list[Excerpt]]:
        """Set aside what `pairs` held-out pairs need, by the rule of `split_held_out`."""
        chosen, whole = choose_held_out(self.frames, self.gaps(frame_gap), pairs)
        training = copy.copy(self)
        training.frames = self.frames.copy()
        training.frames[chosen] -= self.frames[chosen] // (1 if whole else 10)
        held_out = [Excerpt(self[number], int(training.frames[number]), int(self.frames[number])) for number in chosen]
        return training, held_out

    def in_memory(self, gib: float) -> PreparedClips:
        """The same clips, the first of them decoded once into so much memory."""
        cached = copy.copy(self)
        videos = cache_in_memory(self, gib)
        cached._in_memory = {n: video for n, video in enumerate(videos) if not isinstance(video, PreparedClip)}
        return cached
