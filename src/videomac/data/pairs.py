"""Pairs of frames with their masks, in an order that any number of processes and any resume point agree on.

Everything random (order, crop, flip, colour, mask) is a function of (seed, epoch, index of the pair) alone. It depends
on no rank, worker, micro-batch or resume point, so a run on two devices, or an interrupted and resumed one, sees what a
run in one go on one device sees.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

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
        counts = [max(0, len(video) - self.frame_gap.frames(video.fps)) for video in videos]
        self._ends = np.cumsum(np.array(counts, dtype=np.int64))
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
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.videos[number], index - (int(self._ends[number - 1]) if number else 0)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Read, transform and mask the pair with key (epoch, index).

        Raises:
            UserError: neither this pair nor a hundred others can be read.
        """
        epoch, index = key
        generator = torch.Generator().manual_seed(hashed(self._seed, epoch, index))
        # The mask first: it is then the same whatever the transform draws.
        mask = self._sample_mask(1, generator)[0]
        pair, skipped = self._read(epoch, index)
        return {
            "pair": self._transform(pair, generator),
            "mask": mask,
            "skipped": int(skipped),
        }

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
