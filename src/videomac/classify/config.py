"""The options of `finetune` and `probe`: import-light dataclasses whose docstrings are the help texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from videomac.config import TrainConfig, require_at_least, require_frames_fit, require_within
from videomac.errors import UserError
from videomac.utils.checks import check_values


@dataclass
class FinetuneConfig(TrainConfig):
    """Train a backbone, end to end, to classify images."""

    data: Path
    """Folder with train/ and val/, each with one folder of images per class."""
    backbone: str
    """Pre-trained weights (run folder, checkpoint, exported folder), or a timm name for random or timm's weights."""
    out: Path
    """Folder for everything the run makes: checkpoints, curves, pictures, the classifier."""

    command: ClassVar[str] = "finetune"
    sections: ClassVar[dict[str, str]] = {
        "pretrained": "network",
        "image_size": "data",
        "crop_scale": "data",
        "mixup": "regularisation",
        "epochs": "optimisation",
        "precision": "machine",
        "seed": "run",
    }
    """First option of each section of the help."""

    pretrained: bool | None = None
    """Download timm's weights; unless given, only for names that have a tag, such as resnet50.a1_in1k."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run to start from."""

    image_size: int = 224
    """Side of the square crop in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that a random crop takes, from and to."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """timm's name of a policy such as RandAugment; null for crops and flips alone."""
    random_erasing: float = 0.25
    """Probability of filling a random rectangle with noise."""
    crop_pct: float = 0.875
    """Side of the centre crop in evaluation, as a share of the image's resized short side."""

    mixup: float = 0.8
    """Alpha of mixup; 0 for none."""
    cutmix: float = 1.0
    """Alpha of CutMix; 0 for none. With both, each batch takes one or the other."""
    label_smoothing: float = 0.1
    """Share of the target that is spread over all classes."""

    epochs: int = 300
    """Passes over all training images."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up from 0; 40, or two fifteenths of a run of fewer than 300 epochs, unless given."""
    global_batch_size: int = 1024
    """Images per optimizer step, over all devices and accumulated micro-batches."""
    base_lr: float = 8e-4
    """Learning rate per 256 images of the global batch: the peak is base_lr * global_batch_size / 256."""
    min_lr: float = 1e-6
    """Learning rate at the end of the cosine."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""
    layer_decay: float = 0.9
    """Factor between the learning rates of a layer and the next deeper one; 1 for none."""
    layer_grouping: Literal["single", "group"] = "single"
    """What a layer is in a ConvNeXt: a block, or three of them in the third stage and a whole stage elsewhere."""
    ema_decay: float = 0.9999
    """Decay per step of the weights' moving average, which is evaluated too; 0 leaves only the last weights."""

    def __post_init__(self) -> None:
        """Put values into their final form and refuse what cannot work."""
        super().__post_init__()
        require_at_least(self, 1, "image_size")
        require_frames_fit("image_size", (self.image_size, self.image_size))
        require_at_least(self, 0, "mixup", "cutmix")
        require_within(self, 0, 1, "random_erasing")
        for key in ("crop_pct", "layer_decay"):
            if not 0 < getattr(self, key) <= 1:
                raise UserError(f"{key} must be above 0 and at most 1, but is {getattr(self, key)}")
        for key in ("label_smoothing", "ema_decay"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"{key} must be at least 0 and below 1, but is {getattr(self, key)}")

    def default_warmup(self, epochs: float) -> float:
        """40 epochs, or two fifteenths of a shorter run than 300."""
        return min(40.0, epochs * 2 / 15)


@dataclass
class ProbeConfig:
    """Judge frozen features: linear probe and k-NN on the images of a folder."""

    data: Path
    """Folder with train/ and val/, each with one folder of images per class."""
    backbone: str
    """Pre-trained weights (run folder, checkpoint, exported folder), or a timm name for random or timm's weights."""
    out: Path
    """Folder for the features, the numbers and the pictures."""

    command: ClassVar[str] = "probe"

    pretrained: bool | None = None
    """Download timm's weights; unless given, only for names that have a tag, such as resnet50.a1_in1k."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run to probe."""
    image_size: int = 224
    """Side of the square centre crop in pixels."""
    crop_pct: float = 0.875
    """Side of the centre crop, as a share of the image's resized short side."""
    k: int = 20
    """Training images that vote in the k-NN classifier."""
    temperature: float = 0.07
    """Temperature of the votes: a neighbour of cosine similarity s has exp(s / temperature)."""
    seed: int = 0
    """Seed of random weights, and of the images on which the linear probe's penalty is chosen."""
    batch_size: int = 64
    """Images that go through the backbone at once."""
    workers: int = 4
    """Processes that read images."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the backbone; both classifiers compute in float32 or better."""
    resume: bool = False
    """Use the features that an earlier call left in the out folder."""
    overwrite: bool = False
    """Delete what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.data, self.out = Path(self.data), Path(self.out)
        require_at_least(self, 1, "image_size", "k", "batch_size")
        require_frames_fit("image_size", (self.image_size, self.image_size), self.batch_size)
        require_at_least(self, 0, "workers", "seed")
        if self.temperature <= 0:
            raise UserError(f"temperature must be above 0, but is {self.temperature}")
        if not 0 < self.crop_pct <= 1:
            raise UserError(f"crop_pct must be above 0 and at most 1, but is {self.crop_pct}")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: use the features there are, or replace them")
