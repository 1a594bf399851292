"""The training pairs of a run, in the order in which the run takes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from videomac.data.cache import cache_in_memory
from videomac.data.discovery import Skipped, find_videos, select_hours
from videomac.data.loader import TrainingData
from videomac.data.order import GroupedOrder, together_in
from videomac.data.pairs import FramePairs
from videomac.data.prepared import PreparedClips, is_prepared
from videomac.data.split import split_held_out
from videomac.data.transforms import PairTransform
from videomac.data.video import Video
from videomac.errors import UserError
from videomac.models.masking import MaskSampler
from videomac.models.videomac import VideoMAC
from videomac.train.config import PretrainConfig
from videomac.utils.run_dir import write_rows


class PretrainingData(TrainingData):
    """Finds the videos, sets the held-out pairs aside, and makes loaders that start at any optimizer step.

    Args:
        config: the options.
        model: tells the patch size.

    Raises:
        UserError: no usable video, too few pairs for one batch, an image size that the patches do not divide.
    """

    config: PretrainConfig

    def __init__(self, config: PretrainConfig, model: VideoMAC) -> None:
        height, width = config.size
        patch = model.patch_size
        if height % patch or width % patch:
            raise UserError(
                f"image_size {height}x{width} does not divide into patches of {patch} pixels: "
                f"take multiples of {patch}, such as {_nearest(height, patch)}x{_nearest(width, patch)}"
            )
        self.config = config
        self.skipped: list[Skipped] = []
        training: list[Video] | PreparedClips
        if is_prepared(config.data):
            training, identity = self._prepared()
        else:
            training, identity = self._found()
        pairs = FramePairs(
            training,
            frame_gap=config.frame_gap,
            transform=PairTransform(config.size, scale=config.crop_scale, augmentation=config.augmentation),
            sample_mask=MaskSampler((height // patch, width // patch), config.mask_ratio, config.symmetric),
            seed=config.seed,
        )
        order = None
        if isinstance(training, PreparedClips):
            order = GroupedOrder(pairs.counts, training.gop, config.seed, together_in(config.global_batch_size))
        self.num_videos: int = identity["videos"]
        self.num_skipped = sum(entry.is_video for entry in self.skipped)
        super().__init__(
            pairs,
            len(pairs if order is None else order),
            config,
            identity=identity,
            unit="training pairs",
            sample_bytes=24 * height * width,
            order=order,
        )

    def _found(self) -> tuple[list[Video], dict[str, Any]]:
        """The videos of a folder, each of them opened, without what is held out; and the identity of all."""
        config = self.config
        videos = find_videos(config.data, config.frame_gap, self.skipped)
        if config.hours is not None:
            videos = select_hours(videos, config.hours, config.seed)
        if config.cache:
            videos = cache_in_memory(videos, config.cache)
        training, self.held_out = split_held_out(videos, config.held_out, config.frame_gap)
        # The videos' names and lengths, wherever they lie.
        names = "\n".join(f"{video.name} {len(video)}" for video in videos)
        return training, {"videos": len(videos), "names": hashlib.sha256(names.encode()).hexdigest()}

    def _prepared(self) -> tuple[PreparedClips, dict[str, Any]]:
        """The same of a prepared folder, from its manifest; no clip is opened."""
        config = self.config
        clips = PreparedClips.read(config.data).long_enough(config.frame_gap, self.skipped)
        if config.hours is not None:
            clips = clips.within_hours(config.hours, config.seed)
        if config.cache:
            clips = clips.in_memory(config.cache)
        training, self.held_out = clips.without_held_out(config.held_out, config.frame_gap)
        return training, clips.identity()

    def write_skipped(self, out: Path) -> None:
        """Write `skipped.csv`: what in the folder of videos is not used, and why; without any, remove it."""
        (out / "skipped.csv").unlink(missing_ok=True)
        if self.skipped:
            videos_first = sorted(self.skipped, key=lambda entry: not entry.is_video)
            write_rows(out / "skipped.csv", [{"name": entry.name, "reason": entry.reason} for entry in videos_first])


def _nearest(side: int, patch: int) -> int:
    return max(1, round(side / patch)) * patch
