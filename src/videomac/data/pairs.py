"""Pairs of frames with their masks, in an order that any number of processes and any resume point agree on.

Everything random (order, crop, flip, colour, mask) is a function of (seed, epoch, index of the pair) alone. It depends
on no rank, worker, micro-batch or resume point, so a run on two devices, or an interrupted and resumed one, sees what a
run in one go on one device sees.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from videomac.data.transforms import PairTransform
from videomac.data.videos import Video, VideoError
from videomac.errors import UserError
from videomac.masking import random_mask

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 100


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
        frame_gap: distance between frame a and frame b, at least 1.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        *,
        frame_gap: int = 1,
        transform: PairTransform,
        grid: tuple[int, int],
        mask_ratio: float = 0.75,
        symmetric: bool = True,
        seed: int = 0,
    ) -> None:
        """Count the pairs.

        Args:
            videos: those with `frame_gap` frames or fewer give no pair.
            frame_gap: see the class.
            transform: from uint8 frames to the network's input.
            grid: (rows, columns) of the mask.
            mask_ratio: share of the patches to hide.
            symmetric: one mask for both frames (the paper), or one for each.
            seed: not negative.

        Raises:
            UserError: there is no pair, or an option is out of range.
        """
        if frame_gap < 1:
            raise UserError(f"frame_gap must be at least 1, not {frame_gap}")
        self.videos, self.frame_gap, self._transform = videos, frame_gap, transform
        self._grid, self._mask_ratio, self._symmetric = grid, mask_ratio, symmetric
        self._seed = _check_seed(seed)
        counts = [max(0, len(video) - frame_gap) for video in videos]
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
        generator = torch.Generator().manual_seed(_hash(self._seed, epoch, index))
        # The mask first: it is then the same whatever the transform draws.
        masks = random_mask(1 if self._symmetric else 2, self._grid, self._mask_ratio, generator)
        pair, skipped = self._read(epoch, index)
        return {
            "pair": self._transform(pair, generator),
            "mask": masks[0] if self._symmetric else masks,
            "skipped": int(skipped),
        }

    def _read(self, epoch: int, index: int) -> tuple[UInt8[Tensor, "2 3 height width"], bool]:
        """The frames of a pair, and whether it is a substitute."""
        wanted = index
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            video, first = self.locate(wanted)
            try:
                return video.read([first, first + self.frame_gap]), attempt > 1
            except VideoError as error:
                problem = error
                if video.name not in self._reported:
                    self._reported.add(video.name)
                    logger.warning("other pairs take the place of unreadable ones: %s", error)
            wanted = _hash(self._seed, epoch, index, attempt) % len(self)
        raise UserError(f"{_MAX_ATTEMPTS} pairs in a row could not be read, check the videos; the last: {problem}")


class PairSampler:
    """The keys of one process, micro-batch by micro-batch: the `batch_sampler` of a data loader over `FramePairs`.

    Every optimizer step takes the next `global_batch_size` pairs of the epoch's permutation; rank r of w processes
    takes each w-th of them from the r-th on, and cuts its share into `accumulate` micro-batches. What does not fill a
    batch at the end of an epoch is left out. Like PyTorch's `DistributedSampler`, it goes through the same epoch again
    until `set_epoch` is called.

    Attributes:
        steps_per_epoch: optimizer steps of a whole epoch.
        epoch: the one that is iterated over next, counted from 0.
        first_step: the step of it to begin with; 0, except in the epoch that contains `start_step`.
    """

    def __init__(
        self,
        num_pairs: int,
        *,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        seed: int = 0,
        start_step: int = 0,
    ) -> None:
        """Begin at optimizer step `start_step`, counted over the whole run.

        Args:
            num_pairs: length of the data set.
            global_batch_size: pairs per optimizer step, over all processes and micro-batches.
            rank: of this process, in 0..world_size - 1.
            world_size: number of processes.
            accumulate: micro-batches per optimizer step.
            seed: not negative.
            start_step: steps already taken, for resuming.

        Raises:
            UserError: the pairs do not fill one batch, or the batch cannot be shared out evenly.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1}, not {rank}")
        parts = world_size * accumulate
        if global_batch_size < 1 or global_batch_size % parts:
            raise UserError(
                f"global_batch_size {global_batch_size} cannot be shared evenly by {world_size} processes with "
                f"{accumulate} micro-batches each: choose a multiple of {parts}"
            )
        if num_pairs < global_batch_size:
            raise UserError(
                f"{num_pairs} pairs of frames do not fill one batch of {global_batch_size}: add videos, or set "
                f"global_batch_size to {num_pairs} or less"
            )
        self._num_pairs, self._global_batch_size, self._seed = num_pairs, global_batch_size, _check_seed(seed)
        self._rank, self._world_size, self._accumulate = rank, world_size, accumulate
        self.steps_per_epoch = num_pairs // global_batch_size
        self.epoch, self.first_step = divmod(start_step, self.steps_per_epoch)

    @property
    def sampler(self) -> PairSampler:
        """Itself: Lightning looks for `set_epoch` in the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, to its beginning unless it is the present one."""
        if epoch != self.epoch:
            self.epoch, self.first_step = epoch, 0

    def __len__(self) -> int:
        """Return the number of micro-batches left in this epoch."""
        return (self.steps_per_epoch - self.first_step) * self._accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the (epoch, index) keys of each micro-batch."""
        epoch, size = self.epoch, self._global_batch_size
        order = np.random.default_rng(np.random.SeedSequence((self._seed, epoch))).permutation(self._num_pairs)
        for step in range(self.first_step, self.steps_per_epoch):
            share = order[step * size : (step + 1) * size][self._rank :: self._world_size]
            for micro_batch in np.split(share, self._accumulate):
                yield [(epoch, index) for index in micro_batch.tolist()]


def _hash(*numbers: int) -> int:
    """A well-mixed number of 64 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _check_seed(seed: int) -> int:
    if seed < 0:
        raise UserError(f"seed must not be negative, but is {seed}")
    return seed
