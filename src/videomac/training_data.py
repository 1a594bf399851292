"""The training pairs of a run, in the order in which the run takes them."""

from __future__ import annotations

import hashlib
from typing import Any

from torch.utils.data import DataLoader

from videomac import heldout
from videomac.config import PretrainConfig
from videomac.data.pairs import FramePairs
from videomac.data.transforms import PairTransform
from videomac.data.videos import cache_in_memory, find_videos, select_hours
from videomac.errors import UserError
from videomac.model import VideoMAC
from videomac.training_run import whole_run_loader


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
        return whole_run_loader(
            self.pairs, len(self.pairs), self.config, start_step=start_step, rank=rank, world_size=world_size
        )


def _nearest(side: int, patch: int) -> int:
    return max(1, round(side / patch)) * patch
