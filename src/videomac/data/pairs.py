"""Pairs of frames with their masks, in an order that any number of processes and any resume point agree on.

Everything random (order, crop, flip, colour, mask) is a function of (seed, epoch, index of the pair) alone. It depends
on no rank, worker, micro-batch or resume point, so a run on two devices, or an interrupted and resumed one, sees what a
run in one go on one device sees.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from videomac.data.prepared import PreparedClips
from videomac.data.transforms import PairTransform
from videomac.data.video import Video, VideoError
from videomac.errors import UserError
from videomac.utils.frame_gap import FrameGap
from videomac.utils.seeding import check_seed, hashed

logger = logging.getLogger(__name__)
_MAX_ATTEMPTS = 100


MaskSampler = Callable[[int, torch.Generator], Tensor]
"""From a number of pairs and a source of randomness to their masks, `[pairs, *frames, rows, columns]`; picklable."""


class Sample(TypedDict):
    """What one key of `FramePairs` gives; PyTorch's default collation stacks it to batches."""

    pair: Float[Tensor, "2 3 height width"]
    """ImageNet-normalised frames a and b."""
    mask: Bool[Tensor, "*frames rows columns"]
    """True = hidden; [rows, columns] for both frames, or [2, rows, columns]."""
    skipped: int
    """1 if another pair stands in because this one could not be read, else 0."""


class FramePairs(Dataset[Sample]):
    """Every pair of frames `frame_gap` apart in one video is a sample (the paper: each consecutive pair).

    A key is (epoch, index), with index in 0..len - 1; pairs are numbered video by video. If a video cannot be read, it
    is reported once in each worker, and another pair, drawn from (seed, epoch, index), stands in for the one asked for.

    Attributes:
        videos: where the pairs come from.
        frame_gap: distance between frame a and frame b.
        counts: number of pairs of each video.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        frame_gap: int | str = 1,
        transform: PairTransform,
        sample_mask: MaskSampler,
        seed: int = 0,
    ) -> None:
        """Count the pairs.

        Args:
            videos: those that are not longer than `frame_gap` give no pair.
            frame_gap: a number of frames, at least 1, or a time such as "40ms", rounded to whole frames of each video.
            transform: from uint8 frames to the network's input.
            sample_mask: draws the masks of so many pairs from a generator, such as `models.masking.MaskSampler`.
            seed: not negative.

        Raises:
            UserError: there is no pair, or an option is out of range.
        """
        self.videos, self.frame_gap, self._transform = videos, FrameGap(frame_gap), transform
        self._sample_mask = sample_mask
        self._seed = check_seed(seed)
        self.counts = count_pairs(videos, frame_gap)
        self._ends = np.cumsum(self.counts)
        if not len(self):
            raise UserError(f"none of {len(videos)} videos has two frames {frame_gap} apart: add longer ones")
        self._reported: set[str] = set()

    def __len__(self) -> int:
        """Return the number of pairs."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, index: int) -> tuple[Video, int]:
        """Find pair `index`: its video and the number of its frame a."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} asked for of {len(self)}")
        number, first = self._place(index)
        return self.videos[number], first

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Read, transform and mask the pair with key (epoch, index).

        Raises:
            UserError: neither this pair nor a hundred others can be read.
        """
        return self._sample(key, *self._read(*key))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Sample]:
        """Read the samples of a micro-batch, pairs out of one group of pictures of a prepared clip with one decoding.

        Raises:
            UserError: neither one of these pairs nor a hundred others can be read.
        """
        samples: dict[int, Sample] = {}
        for places in self._read_together(keys):
            for place, pair in self._read_at_once(keys, places):
                samples[place] = self._sample(keys[place], pair, False)
        return [samples[place] if place in samples else self[key] for place, key in enumerate(keys)]

    def _sample(self, key: tuple[int, int], pair: UInt8[Tensor, "2 3 height width"], skipped: bool) -> Sample:
        generator = torch.Generator().manual_seed(hashed(self._seed, *key))
        # The mask first: it is then the same whatever the transform draws.
        mask = self._sample_mask(1, generator)[0]
        return {"pair": self._transform(pair, generator), "mask": mask, "skipped": int(skipped)}

    def _place(self, index: int) -> tuple[int, int]:
        """The number of a pair's video, and of its frame a."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)

    def _read_together(self, keys: Sequence[tuple[int, int]]) -> list[list[int]]:
        """The places of keys, of which several begin in one group of pictures."""
        if not isinstance(self.videos, PreparedClips):
            return []
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (_, index) in enumerate(keys):
            number, first = self._place(index)
            groups.setdefault((number, first // self.videos.gop), []).append(place)
        return [places for places in groups.values() if len(places) > 1]

    def _read_at_once(
        self, keys: Sequence[tuple[int, int]], places: Sequence[int]
    ) -> Iterator[tuple[int, UInt8[Tensor, "2 3 height width"]]]:
        """(place, frames) of pairs of one clip; nothing if one of them cannot be read: then each is read by itself."""
        firsts = [self._place(keys[place][1])[1] for place in places]
        video = self.videos[self._place(keys[places[0]][1])[0]]
        gap = self.frame_gap.frames(video.fps)
        wanted = sorted({*firsts, *(first + gap for first in firsts)})
        try:
            frames = video.read(wanted)
        except VideoError:
            return
        for place, first in zip(places, firsts, strict=True):
            a, b = wanted.index(first), wanted.index(first + gap)
            yield place, frames[a : b + 1 : b - a]

    def _read(self, epoch: int, index: int) -> tuple[UInt8[Tensor, "2 3 height width"], bool]:
        """The frames of a pair, and whether it is a substitute."""
        wanted = index
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            video, first = self.locate(wanted)
            try:
                return video.read([first, first + self.frame_gap.frames(video.fps)]), attempt > 1
            except VideoError as error:
                problem = error
                if video.name not in self._reported:
                    self._reported.add(video.name)
                    logger.warning("skipped an unreadable pair and used another: %s", error)
            wanted = hashed(self._seed, epoch, index, attempt) % len(self)
        raise UserError(f"{_MAX_ATTEMPTS} pairs in a row could not be read, check the videos; the last: {problem}")


def count_pairs(videos: Sequence[Video], frame_gap: int | str) -> Int64[np.ndarray, " videos"]:
    """The number of pairs of each video."""
    if isinstance(videos, PreparedClips):
        return videos.count_pairs(frame_gap)
    gap = FrameGap(frame_gap)
    return np.array([max(0, len(video) - gap.frames(video.fps)) for video in videos], dtype=np.int64)
