"""The options of `pretrain`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from videomac.config import (
    TrainConfig,
    as_size,
    require_at_least,
    require_mask_ratio,
    require_something_to_train,
    require_within,
)
from videomac.errors import UserError


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
    sections: ClassVar[dict[str, str]] = {
        "image_size": "data",
        "crop_scale": "data",
        "preset": "method",
        "epochs": "optimisation",
        "precision": "machine",
        "seed": "run",
    }
    """First option of each section of the help."""

    image_size: int | tuple[int, int] = 224
    """Side of the square crop, or [height, width], in pixels; the backbone's stride must divide it."""
    frame_gap: int = 1
    """Distance between the two frames of a pair, in frames."""
    augmentation: Literal["spatial", "color", "spatial+color", "none"] = "spatial"
    """What both frames of a pair undergo alike: random crop and flip, colour jitter, both, or a centre crop."""
    hours: float | None = None
    """Train on a reproducible subset of the videos of this many hours; all of them unless given."""
    held_out: int = 4
    """Pairs kept out of training for the reconstruction sheet and the held-out loss; 0 trains on everything."""
    workers: int = 4
    """Processes that read videos, on each device."""
    cache: float = 0.0
    """Decode the videos once and keep them in this many GiB of memory; those that do not fit are read from disk."""

    preset: Literal["paper", "official"] = "paper"
    """Follow the paper's text, or the choices of the authors' released code."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden, above 0 and below 1."""
    patch_size: int | None = None
    """Side of a patch in pixels, a multiple of the backbone's stride, which is the default."""
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
    """Reconstruct pixels normalised by each patch's own mean and deviation."""
    decoder_width: int = 512
    """Channels of the decoder."""
    decoder_depth: int = 1
    """ConvNeXt blocks of the decoder."""
    drop_path: float = 0.0
    """Stochastic depth of the backbone, for timm models that take drop_path_rate."""
    mode: Literal["auto", "blocks", "masked"] = "auto"
    """How the encoder leaves out hidden patches: compute visible blocks only, or the masked frame; auto picks."""
    init_from: Path | None = None
    """Start from the weights of this run folder, checkpoint or exported backbone (a new run: see resume)."""

    epochs: int = 100
    """Passes over all pairs."""
    global_batch_size: int = 512
    """Pairs per optimizer step, over all devices and accumulated micro-batches."""
    base_lr: float = 1e-3
    """Learning rate per 256 pairs of the global batch: the peak is base_lr * global_batch_size / 256."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; 10 unless given, or a tenth of a run of fewer than 100 epochs."""
    momentum: float = 0.996
    """Momentum of the target network at the start; it rises to 1 along a cosine over the whole run."""
    keep_epochs: int = 10
    """Keep the checkpoint of every so many epochs, besides the last one; 0 keeps the last one alone."""

    def __post_init__(self) -> None:
        """Put paths and sizes into their final form and refuse what cannot work."""
        super().__post_init__()
        self.init_from = None if self.init_from is None else Path(self.init_from)
        self.image_size = as_size(self.image_size)
        require_mask_ratio(self.mask_ratio)
        require_at_least(self, 1, "frame_gap", "decoder_width", "decoder_depth")
        require_at_least(self, 0, "held_out", "cache", "gamma")
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

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        return min(10.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs
