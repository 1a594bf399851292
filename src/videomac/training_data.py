"""The training pairs of a run, in the order in which the run takes them."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from videomac import heldout
from videomac.config import PretrainConfig
from videomac.data.pairs import FramePairs, PairSampler
from videomac.data.transforms import PairTransform
from videomac.data.videos import cache_in_memory, find_videos, select_hours
from videomac.errors import UserError
from videomac.model import VideoMAC


class TrainingData:
    """Finds the videos, sets the held-out pairs aside, and makes loaders that start at any optimizer step.

    Args:
        config: the options.
        model: tells the patch size.

    Raises:
        UserError: no usable video, too few pairs for one batch, an image size that the patches do not divide.
    """

    def __init__(self, config: PretrainConfig, model: VideoMAC) -> None:
        self.config = config
        height, width = config.size
        patch = model.patch_size
        if height % patch or width % patch:
            raise UserError(
                f"image_size {height}x{width} does not divide into patches of {patch} pixels: "
                f"take multiples of {patch}, such as {_nearest(height, patch)}x{_nearest(width, patch)}"
            )
        skipped: list[str] = []
        videos = find_videos(config.data, config.frame_gap, skipped)
        if config.hours is not None:
            videos = select_hours(videos, config.hours, config.seed)
        if config.cache:
            videos = cache_in_memory(videos, config.cache)
        training, self.held_out = heldout.split(videos, config.held_out, config.frame_gap)
        transform = PairTransform(config.size, scale=config.crop_scale, augmentation=config.augmentation)
        self.pairs = FramePairs(
            training,
            frame_gap=config.frame_gap,
            transform=transform,
            grid=(height // patch, width // patch),
            mask_ratio=config.mask_ratio,
            symmetric=config.symmetric,
            seed=config.seed,
        )
        self.steps_per_epoch = len(self.pairs) // config.global_batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{config.data} holds {len(self.pairs)} training pairs, fewer than one batch: "
                f"lower global_batch_size ({config.global_batch_size}) or add videos"
            )
        self.total_steps = self.steps_per_epoch * config.epochs
        names = "\n".join(f"{video.name} {len(video)}" for video in videos)
        self.num_videos = len(videos)
        self.num_skipped = len(skipped)
        self.identity = {"videos": len(videos), "names": hashlib.sha256(names.encode()).hexdigest()}
        """What must be equal when a run is resumed: the videos' names and lengths, wherever they lie."""

    def loader(self, start_step: int, rank: int, world_size: int) -> DataLoader[Any]:
        """Return the micro-batches of one process from optimizer step `start_step` to the end of the run."""
        config = self.config
        sampler = PairSampler(
            len(self.pairs),
            global_batch_size=config.global_batch_size,
            rank=rank,
            world_size=world_size,
            accumulate=config.accumulate,
            seed=config.seed,
            start_step=start_step,
        )
        return ResumableLoader(
            self.pairs,
            batch_sampler=WholeRun(sampler, config.epochs, self.total_steps * config.accumulate),
            num_workers=config.workers,
            worker_init_fn=_leave_signals_to_the_main_process,
            persistent_workers=config.workers > 0,  # which also lets the trainer end them when the run fails
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if config.workers else None,
        )


class WholeRun:
    """The micro-batches of all epochs in a row, from where the sampler stands.

    Its length is that of the whole run, resumed or not, which is how the trainer and its bar count.
    """

    def __init__(self, sampler: PairSampler, epochs: int, length: int) -> None:
        self.pairs, self.epochs, self.length = sampler, epochs, length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys of one micro-batch after the other."""
        for epoch in range(self.pairs.epoch, self.epochs):
            self.pairs.set_epoch(epoch)
            yield from self.pairs

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.length


class ResumableLoader(DataLoader[Any]):
    """A loader without a state of its own: where it starts follows from the trainer's step.

    The two methods tell the trainer that resuming in the middle is intended.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def _leave_signals_to_the_main_process(_worker: int) -> None:
    """Keep reading after Ctrl-C or SIGTERM to the whole group: the main process finishes its step, saves and ends us.

    If it is stuck or gone half a minute after SIGTERM, the alarm ends us.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def _nearest(side: int, patch: int) -> int:
    return max(1, round(side / patch)) * patch
