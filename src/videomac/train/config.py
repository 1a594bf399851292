"""The options of `pretrain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from videomac.config import (
    TrainConfig,
    as_size,
    require_at_least,
    require_decoder_fits,
    require_local,
    require_mask_ratio,
    require_something_to_train,
    require_within,
)
from videomac.errors import UserError
from videomac.utils.frame_gap import FrameGap

RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "image_size": 224,
        "held_out": 4,
        "decoder_width": 512,
        "epochs": 100,
        "global_batch_size": 512,
        "base_lr": 1e-3,
        "momentum": 0.996,
    },
    "small": {
        "image_size": 128,
        "held_out": 16,
        "decoder_width": 256,
        "steps": 2760,
        "global_batch_size": 32,
        "base_lr": 1.2e-2,
        "momentum": 0.98,
    },
}
"""What `recipe` sets; docs/results.md shows what the small one reaches in 24 minutes on one core."""


MOST_HELD_OUT = 1024
"""Pairs that are kept in memory and reconstructed after each epoch."""


def by_recipe() -> Any:
    """An option that the recipe sets unless it is given."""
    return field(default=None)


@dataclass
class PretrainConfig(TrainConfig):
    """Pre-train a timm ConvNet on a folder of videos."""

    data: Path
    """Folder of videos: video files, folders of frames, or a mix, at any depth."""
    backbone: str
    """Name of a timm ConvNet, or resnet18_patchify, resnet50_patchify, convnextv2_small_isotropic."""
    out: Path
    """Folder for everything the run makes: checkpoints, curves, pictures, exported weights."""

    command: ClassVar[str] = "pretrain"
    for_little_data: ClassVar[str] = "take --recipe small, which is for little data, or add videos"
    sections: ClassVar[dict[str, str]] = {
        "recipe": "data",
        "crop_scale": "data",
        "preset": "method",
        "epochs": "optimisation",
        "precision": "machine",
        "seed": "run",
        "compile": "machine",
    }
    """First option of each section of the help."""

    recipe: Literal["paper", "small"] = "paper"
    """What options that are not given become: the paper's values, or those that suit a CPU or little data.

    The small recipe is 128 pixels, batches of 32, 2,760 steps, a peak learning rate of 1.5e-3 and a momentum of .98.
    """

    image_size: int | tuple[int, int] = by_recipe()
    """Side of the square crop, or [height, width], in pixels; the patch must divide it.
    224, or 128 (small)."""
    frame_gap: int | str = 1
    """Distance between the two frames of a pair: a number of frames, or a time such as 40ms."""
    augmentation: Literal["spatial", "color", "spatial+color", "none"] = "spatial"
    """What both frames of a pair undergo alike: random crop and flip, colour jitter, both, or a centre crop."""
    hours: float | None = None
    """Train on a reproducible subset of the videos of this many hours; all of them unless given."""
    held_out: int = by_recipe()
    """Pairs kept out of training for the reconstruction sheet and the held-out loss; 0 trains on everything.
    4, or 16 (small)."""
    score_on: Path | None = None
    """Folder of videos, kept out of training, on which the features are scored at each epoch's end against the run's
    own random weights; none: no score."""
    cache: float = 0.0
    """Decode the videos once and keep them in this many GiB of memory; those that do not fit are read from disk."""

    preset: Literal["paper", "official"] = "paper"
    """Follow the paper's text, or the choices of the authors' released code."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden, above 0 and below 1."""
    output_stride: Literal[32, 16, 8] | None = None
    """Pixels per cell of the backbone's output, 32, 16 or 8; the backbone's own unless given.

    A finer one turns later strides into dilation, at a price in time; for ConvNeXt, ResNet and some others of timm.
    """
    patch_size: int | None = None
    """Side of a patch in pixels, a multiple of the backbone's stride, which is the default; 32 with output_stride."""
    symmetric: bool = True
    """Hide the same patches in both frames of a pair."""
    gamma: float = 1.0
    """Weight of the consistency loss."""
    online_loss: bool = True
    """Train on the online network's reconstruction of the first frame."""
    target_loss: bool = True
    """Add the target network's reconstruction loss of the second frame to the total."""
    consistency_loss: bool = True
    """Train on the distance between the two reconstructions."""
    target_gradient: bool = False
    """Let the second frame's loss train the online network too, by having it reconstruct that frame as well."""
    norm_pix_loss: bool = True
    """Reconstruct pixels normalised by each patch's own mean and standard deviation."""
    decoder_width: int = by_recipe()
    """Channels of the decoder. 512, or 256 (small)."""
    decoder_depth: int = 1
    """ConvNeXt blocks of the decoder."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone, for timm models that take drop_path_rate."""
    mode: Literal["auto", "blocks", "masked"] = "auto"
    """How the encoder leaves out hidden patches: compute visible blocks only, or the masked frame; auto picks."""
    init_from: str | None = None
    """Start from these weights: run folder, checkpoint, exported backbone, or a name of timm's with its tag, such as
    convnextv2_atto.fcmae_ft_in1k. (A new run begins; see resume.)"""

    epochs: int = by_recipe()
    """Passes over all pairs. 100, or none (small)."""
    steps: int | None = by_recipe()
    """Optimizer steps of the run, in place of epochs. None, or 2,760 (small)."""
    global_batch_size: int = by_recipe()
    """Pairs per optimizer step, over all devices and accumulated micro-batches. 512, or 32 (small)."""
    base_lr: float = by_recipe()
    """Learning rate per 256 pairs of the global batch: the peak is base_lr * global_batch_size / 256.
    1e-3, or 1.2e-2 (small)."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; 10 unless given, or a tenth of a run of fewer than 100 epochs."""
    momentum: float = by_recipe()
    """Momentum of the target network at the start; it rises to 1 along a cosine over the whole run.
    .996, or .98 (small)."""
    keep_epochs: int = 10
    """Keep the checkpoint of every so many epochs, besides the last one; 0 keeps the last one alone."""
    compile: bool = False
    """Compile the networks with torch.compile: the first step takes minutes, the others less time on a GPU."""

    def __post_init__(self) -> None:
        """Fill in the recipe, put paths and sizes into their final form and refuse what cannot work."""
        if self.epochs is not None and self.steps is not None:
            raise UserError("epochs and steps exclude each other: give one of them")
        length_given = self.epochs is not None or self.steps is not None
        for key, value in RECIPES[self.recipe].items():
            if getattr(self, key) is None and not (length_given and key in ("epochs", "steps")):
                setattr(self, key, value)
        super().__post_init__()
        self.image_size = as_size(self.image_size)
        if self.score_on is not None:
            self.score_on = Path(self.score_on)
            require_local("score_on", self.score_on)
        require_mask_ratio(self.mask_ratio)
        FrameGap(self.frame_gap)
        require_at_least(self, 1, "decoder_width", "decoder_depth")
        require_decoder_fits(self.decoder_width, self.decoder_depth)
        if self.patch_size is not None:
            require_at_least(self, 1, "patch_size")
        require_within(self, 0, MOST_HELD_OUT, "held_out")
        require_at_least(self, 0, "cache", "gamma")
        require_within(self, 0, 1, "momentum")
        if self.hours is not None and self.hours <= 0:
            raise UserError(f"hours must be above 0, but is {self.hours}")
        require_something_to_train(
            self.online_loss, self.target_loss, self.consistency_loss, self.gamma, self.target_gradient
        )

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` as (height, width) in pixels."""
        return as_size(self.image_size)

    def default_warmup(self, epochs: float) -> float:
        """10 epochs, or a tenth of a shorter run than 100."""
        return min(10.0, epochs / 10)
