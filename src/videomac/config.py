"""The options of every command: one dataclass is the Python signature, the flags, the YAML keys and the help text.

Nothing heavy is imported here, so that `videomac --help` is instant.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from videomac.errors import UserError

FREE_ON_RESUME = frozenset(
    {"data", "out", "resume", "overwrite", "workers", "cache", "save_minutes", "save_steps", "keep_epochs", "wandb"}
)
"""Keys of a training that may differ when a run is resumed, because the numbers do not depend on them.

`data` is among them because a folder may move: the checkpoint knows what it held.
"""


@dataclass
class PretrainConfig:
    """Pre-train a timm ConvNet on a folder of videos."""

    data: Path
    """Folder of videos: video files, folders of frames, or a mix, at any depth."""
    backbone: str
    """Name of a timm ConvNet, or resnet18_patchify, resnet50_patchify, convnextv2_small_isotropic."""
    out: Path
    """Folder for everything the run makes: checkpoints, curves, pictures, exported weights."""

    sections: ClassVar[dict[str, str]] = {
        "image_size": "data",
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
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the frame's area that a random crop takes, from and to."""
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
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; 10 unless given, or a tenth of a run of fewer than 100 epochs."""
    weight_decay: float = 0.05
    """AdamW's weight decay, on weights of two or more dimensions."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    momentum: float = 0.996
    """Momentum of the target network at the start; it rises to 1 along a cosine over the whole run."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    """Arithmetic of the networks; bf16-mixed suits recent GPUs. Losses stay in float32."""
    devices: int | Literal["auto"] = "auto"
    """GPUs of each node, or CPU processes with --trainer.accelerator cpu; auto takes all GPUs, or one CPU process."""
    num_nodes: int = 1
    """Machines."""
    accumulate: int = 1
    """Micro-batches per optimizer step: the same result with less memory."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further arguments of Lightning's Trainer, such as --trainer.accelerator cpu."""

    seed: int = 0
    """Seed of everything random; the same seed gives the same run."""
    resume: bool = False
    """Continue the run in the out folder exactly where its last checkpoint stands."""
    overwrite: bool = False
    """Delete the run in the out folder and start anew."""
    save_minutes: float = 15.0
    """Write a checkpoint whenever this many minutes have passed, besides each epoch's end; 0 for never."""
    save_steps: int = 0
    """Write a checkpoint every so many optimizer steps, besides each epoch's end; 0 for never."""
    keep_epochs: int = 10
    """Keep the checkpoint of every so many epochs, besides the last one; 0 keeps the last one alone."""
    wandb: bool = False
    """Log to Weights & Biases too."""

    def __post_init__(self) -> None:
        """Put paths and sizes into their final form and refuse what cannot work."""
        self.data, self.out = Path(self.data), Path(self.out)
        self.init_from = None if self.init_from is None else Path(self.init_from)
        self.image_size = as_size(self.image_size)
        self.crop_scale = (float(self.crop_scale[0]), float(self.crop_scale[1]))
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        _require_mask_ratio(self.mask_ratio)
        require_at_least(self, 1, "frame_gap", "epochs", "global_batch_size", "accumulate", "num_nodes")
        require_at_least(self, 1, "decoder_width", "decoder_depth")
        require_at_least(self, 0, "held_out", "workers", "cache", "gamma", "base_lr", "min_lr", "weight_decay", "seed")
        require_at_least(self, 0, "save_minutes", "save_steps", "keep_epochs")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"crop_scale must rise within (0, 1], such as [0.2, 1.0], but is {list(self.crop_scale)}")
        for key in ("drop_path", "momentum"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"{key} must lie between 0 and 1, but is {getattr(self, key)}")
        if self.hours is not None and self.hours <= 0:
            raise UserError(f"hours must be above 0, but is {self.hours}")
        if self.devices != "auto" and self.devices < 1:
            raise UserError(f"devices must be 'auto' or at least 1, but is {self.devices}")
        if self.warmup_epochs is not None and not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(f"warmup_epochs must lie between 0 and epochs ({self.epochs}), but is {self.warmup_epochs}")
        if not (self.online_loss or self.consistency_loss or (self.target_loss and self.target_gradient)):
            raise UserError("nothing would train the network: set online_loss or consistency_loss")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: continue the run, or replace it")

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` as (height, width) in pixels."""
        return as_size(self.image_size)

    @property
    def warmup(self) -> float:
        """Epochs of warm-up."""
        return min(10.0, self.epochs / 10) if self.warmup_epochs is None else self.warmup_epochs


@dataclass
class ReconstructConfig:
    """Show what a pre-trained network reconstructs of a video: sheets of pairs and a side-by-side mp4."""

    checkpoint: Path
    """Run folder, checkpoint (.ckpt), or the authors' mac-*.pth."""
    video: Path
    """Video file, folder of frames, or folder of several videos."""
    out: Path
    """Folder for the pictures and clips."""
    pairs: int = 4
    """Pairs of frames on a video's sheet."""
    mask_ratio: float | None = None
    """Share of the patches to hide, if not the one trained with."""
    image_size: int | None = None
    """Short side of the frames in pixels, if not the one trained with; the long side keeps the frame's shape."""
    frame_gap: int = 1
    """Distance between the two frames of a pair, in frames."""
    seed: int = 0
    """Seed of the masks."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    overwrite: bool = False
    """Replace what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.checkpoint, self.video, self.out = Path(self.checkpoint), Path(self.video), Path(self.out)
        require_at_least(self, 1, "pairs", "frame_gap")
        if self.mask_ratio is not None:
            _require_mask_ratio(self.mask_ratio)


@dataclass
class DemoConfig:
    """Pre-train a small ConvNet on three short clips, on the CPU, in about two minutes."""

    out: Path = Path("runs/demo")
    """Folder for everything the demo makes."""
    overwrite: bool = False
    """Replace what an earlier demo left in the out folder."""

    def __post_init__(self) -> None:
        """Put the path into its final form."""
        self.out = Path(self.out)


@dataclass
class InspectConfig:
    """Show what a network is, what it costs, and what the engine makes of its layers."""

    name: str
    """Name of a timm ConvNet, or one of videomac's own."""
    image_size: int | tuple[int, int] = 224
    """Side of the square frame, or [height, width], in pixels."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    picture: Path | None = None
    """Also draw, to this PNG or SVG, how the mask dissolves in the dense network and stays in ours (Fig. 5)."""

    def __post_init__(self) -> None:
        _require_mask_ratio(self.mask_ratio)


def as_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return an image size as (height, width) in pixels; one number means a square.

    Raises:
        UserError: if it is not one or two positive whole numbers.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or any(side < 1 for side in size):
        raise UserError(f"image_size must be one side or [height, width] in pixels, above 0, but is {image_size}")
    return size


def as_plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain YAML values: paths as text, tuples as lists."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def save_config(config: Any, path: Path) -> None:
    """Write a resolved config as YAML that `--config` reads back."""
    import yaml

    values = as_plain(config)
    values.update({key: False for key in ("resume", "overwrite") if key in values})
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def changed_keys(config: Any, path: Path) -> list[str]:
    """Return the keys in which `config` differs from the run whose config.yaml is at `path`, and would change it.

    Raises:
        UserError: if the file cannot be read as a config.
    """
    import yaml

    try:
        before = type(config)(**yaml.safe_load(path.read_text()))
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not a config of this version of videomac: {error}") from error
    keys = (field.name for field in fields(config) if field.name not in FREE_ON_RESUME)
    return [key for key in keys if getattr(before, key) != getattr(config, key)]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def require_at_least(config: Any, minimum: int, *keys: str) -> None:
    """Refuse a config in which one of these values is smaller.

    Raises:
        UserError: names the first one.
    """
    for key in keys:
        if getattr(config, key) < minimum:
            raise UserError(f"{key} must be at least {minimum}, but is {getattr(config, key)}")


def _require_mask_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise UserError(f"mask_ratio must be above 0 and below 1 (something hidden, something seen), but is {ratio}")
