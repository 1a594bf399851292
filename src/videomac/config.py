"""What every training has in common: its options, their checks, and how options are stored and read.

Nothing heavy is imported here, so that `videomac --help` is instant.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from videomac.errors import UserError
from videomac.utils.checks import check_values
from videomac.utils.yaml_text import read as read_yaml

FREE_ON_RESUME = frozenset(
    {
        *("data", "out", "resume", "overwrite", "workers", "cache", "devices", "num_nodes", "accumulate"),
        *("save_minutes", "save_steps", "keep_epochs", "wandb", "score_on"),
    }
)
"""Keys of a training that may differ when a run is resumed, because the numbers do not depend on them.

`data` is among them because a folder may move: the checkpoint knows what it held. The global batch stays, whatever
number of devices and micro-batches shares it.
"""


SET_BY_THE_RUN = frozenset(
    {
        *("accumulate_grad_batches", "callbacks", "default_root_dir", "devices", "enable_checkpointing"),
        *("enable_model_summary", "fast_dev_run", "limit_train_batches", "logger", "log_every_n_steps", "max_epochs"),
        *("max_steps", "max_time", "min_epochs", "min_steps", "num_nodes", "overfit_batches", "plugins", "precision"),
        *("reload_dataloaders_every_n_epochs", "use_distributed_sampler"),
    }
)
"""Arguments of Lightning's Trainer that are options of ours, or on which exact resume depends."""
DEEPEST_DECODER = 256
"""Blocks; one is what the paper takes."""
LARGEST_SIDE = 2**13
"""Pixels of a frame's side: those of an 8K camera."""


@dataclass
class TrainConfig:
    """The options that every training has; a command's own class adds its own."""

    data: Path
    """Folder to train on."""
    backbone: str
    """The network."""
    out: Path
    """Folder for everything the run makes."""

    command: ClassVar[str]
    """The command that takes these options; `config.yaml` says so."""
    for_little_data: ClassVar[str] = "add more"
    """What to do, besides taking smaller batches, if there is less data than one batch."""
    sections: ClassVar[dict[str, str]] = {}
    """First option of each section of the help, in the order in which the sections are shown."""

    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Share of the frame's area that a random crop takes, from and to."""
    workers: int | Literal["auto"] = "auto"
    """Processes that read the data, on each device; auto takes up to eight, and leaves a core to each device itself."""

    epochs: int = 100
    """Passes over all training data."""
    steps: int | None = None
    """Optimizer steps of the run, in place of epochs."""
    global_batch_size: int = 512
    """Samples per optimizer step, over all devices and accumulated micro-batches."""
    base_lr: float = 1e-3
    """Learning rate per 256 samples of the global batch: the peak is base_lr * global_batch_size / 256."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up."""
    weight_decay: float = 0.05
    """AdamW's weight decay, on weights of two or more dimensions."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, rising linearly from 0 in the first."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    """Arithmetic of the networks; bf16-mixed suits recent GPUs. Losses stay in float32."""
    devices: int | Literal["auto"] = "auto"
    """GPUs of each node, or CPU processes with --trainer.accelerator cpu; auto takes all GPUs, or one CPU process."""
    num_nodes: int = 1
    """Machines."""
    accumulate: int | Literal["auto"] = 1
    """Micro-batches per optimizer step, for less memory; auto takes as few as fit into this machine's.

    The result is the same, unless the network has BatchNorm or drop path, which see one micro-batch at a time.
    """
    trainer: dict[str, Any] = field(default_factory=dict)
    """Further arguments of Lightning's Trainer, such as --trainer.accelerator cpu."""

    seed: int = 0
    """Seed of everything random; the same seed gives the same run."""
    resume: bool | Literal["auto"] = False
    """Continue the run in the out folder exactly where its last checkpoint stands; auto also starts it if there is no
    run, and is content if it is finished, so that one command may be repeated."""
    overwrite: bool = False
    """Delete the run in the out folder and start anew."""
    save_minutes: float = 15.0
    """Write a checkpoint whenever this many minutes have passed, besides each epoch's end; 0 for never."""
    save_steps: int = 0
    """Write a checkpoint every so many optimizer steps, besides each epoch's end; 0 for never."""
    keep_epochs: int = 0
    """Keep the checkpoint of every so many epochs, besides the last one; 0 keeps the last one alone."""
    wandb: bool = False
    """Log to Weights & Biases too (pip install '.[wandb]' in the checkout)."""

    def __post_init__(self) -> None:
        """Put values into their final form and refuse what cannot work in any training."""
        check_values(self)
        self.data, self.out = Path(self.data), Path(self.out)
        require_local("data", self.data)
        require_local("out", self.out)
        self.crop_scale = (float(self.crop_scale[0]), float(self.crop_scale[1]))
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        require_at_least(self, 1, "epochs" if self.steps is None else "steps", "global_batch_size", "num_nodes")
        require_at_least(self, 0, "base_lr", "min_lr", "weight_decay", "seed")
        for key, least in (("devices", 1), ("accumulate", 1), ("workers", 0)):
            value = getattr(self, key)
            if value != "auto" and value < least:
                raise UserError(f"{key} must be 'auto' or at least {least}, but is {value}")
        require_at_least(self, 0, "save_minutes", "save_steps", "keep_epochs")
        require_within(self, 0, 1, "drop_path")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas must be at least 0 and below 1, but are {list(self.betas)}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"crop_scale must rise within (0, 1], such as [0.2, 1.0], but is {list(self.crop_scale)}")
        if self.warmup_epochs is not None and self.steps is None and not 0 <= self.warmup_epochs <= self.epochs:
            raise UserError(f"warmup_epochs must lie between 0 and epochs ({self.epochs}), but is {self.warmup_epochs}")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: continue the run, or replace it")
        for key in sorted(SET_BY_THE_RUN & self.trainer.keys()):
            raise UserError(f"trainer.{key} cannot be given, because a run sets it itself: leave it out")

    @property
    def micro_batches(self) -> int:
        """`accumulate` as a number.

        Raises:
            ValueError: it is still "auto"; a run replaces that before its first step.
        """
        if self.accumulate == "auto":
            raise ValueError("accumulate is still 'auto'")
        return self.accumulate

    def default_warmup(self, epochs: float) -> float:
        """Epochs of warm-up of a run of so many epochs, unless `warmup_epochs` says otherwise."""
        raise NotImplementedError

    def warmup(self, epochs: float) -> float:
        """Epochs of warm-up of a run of so many epochs."""
        return self.default_warmup(epochs) if self.warmup_epochs is None else min(self.warmup_epochs, epochs)


def as_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return an image size as (height, width) in pixels; one number means a square.

    Raises:
        UserError: if it is not one or two positive whole numbers.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or any(side < 1 for side in size):
        raise UserError(f"image_size must be one side or [height, width] in pixels, above 0, but is {image_size}")
    require_frames_fit("image_size", size)
    return size


def require_frames_fit(key: str, size: tuple[int, int], frames: int = 1) -> None:
    """Refuse frames that no machine, or not the memory of this one, can hold, before anything takes it.

    A network's activations take at least four times the memory of its frames in float32.

    Args:
        key: the option that says so.
        size: (height, width) in pixels.
        frames: how many are held at once.

    Raises:
        UserError: says how much they would take.
    """
    import psutil

    if max(size) > LARGEST_SIDE:
        raise UserError(f"{key} must be at most {LARGEST_SIDE} pixels, but is {max(size)}: lower it")
    needed, there = 4 * 12 * frames * size[0] * size[1], int(psutil.virtual_memory().total)
    if needed > there:
        raise UserError(
            f"{frames:,} frame(s) of {size[0]}x{size[1]} pixels at once take at least {needed / 2**30:.1f} GiB in the "
            f"network, and this machine has {there / 2**30:.1f} GiB: lower {key}, or how many are taken at once"
        )


def require_decoder_fits(width: int, depth: int) -> None:
    """Refuse a decoder that takes minutes to build, or that this machine cannot hold.

    Counted are the weights of two networks, with gradients and averages.

    Raises:
        UserError: says how much they would take.
    """
    import psutil

    if depth > DEEPEST_DECODER:
        raise UserError(f"decoder_depth must be at most {DEEPEST_DECODER}, but is {depth}: lower it")
    needed, there = 5 * 4 * depth * (8 * width + 60) * width, int(psutil.virtual_memory().total)
    if needed > there:
        raise UserError(
            f"a decoder with decoder_width {width} and decoder_depth {depth} takes {needed / 2**30:.1f} GiB, and this "
            f"machine has {there / 2**30:.1f} GiB: lower them"
        )


def as_plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain YAML values: paths as text, tuples as lists."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def save_config(config: Any) -> None:
    """Write the command and its resolved options to the out folder, as a `config.yaml` that `--config` reads back."""
    import yaml

    values = {"command": config.command, **as_plain(config)}
    values.update({key: False for key in ("resume", "overwrite") if key in values})
    (config.out / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def read_config(folder: Path, made_by: str = "") -> dict[str, Any]:
    """Read what a command wrote down about itself in the `config.yaml` of its out folder.

    Args:
        folder: the out folder.
        made_by: the command, such as "pretrain" or "eval cycle"; "eval" stands for all of these. Any unless given.

    Returns:
        "command", and its options.

    Raises:
        UserError: there is no such file, it is damaged, or another command wrote it.
    """
    import yaml

    path, cure = folder / "config.yaml", f"name a folder that `videomac {made_by or 'COMMAND'}` wrote"
    if not path.is_file():
        raise UserError(f"{folder} holds no run (no config.yaml): {cure}")
    try:
        found = read_yaml(path)
    except (UserError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())[:100]}): restore it") from error
    if not isinstance(found, dict) or "command" not in found:
        raise UserError(f"{path} does not say which command of videomac wrote it: {cure}")
    words = made_by.split()
    if str(found["command"]).split()[: len(words)] != words:
        raise UserError(f"{folder} was made by `videomac {found['command']}`: {cure}")
    return found


def changed_keys(config: Any, folder: Path, free: frozenset[str] = FREE_ON_RESUME) -> list[str]:
    """Return the keys in which `config` differs from the run in a folder, and would change it.

    Args:
        config: the options.
        folder: of the run.
        free: keys on which the numbers do not depend.

    Raises:
        UserError: if the run's config.yaml cannot be read as such a config.
    """
    stored = read_config(folder, config.command)
    del stored["command"]
    try:
        before = type(config)(**stored)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder / 'config.yaml'} is not a config of this version of videomac: {error}") from error
    keys = sorted(field.name for field in fields(config) if field.name not in free)
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


def require_within(config: Any, lowest: float, highest: float, *keys: str) -> None:
    """Refuse a config in which one of these values lies outside `lowest` to `highest`, both included.

    Raises:
        UserError: names the first one.
    """
    for key in keys:
        if not lowest <= getattr(config, key) <= highest:
            raise UserError(f"{key} must lie between {lowest} and {highest}, but is {getattr(config, key)}")


def require_local(what: str, path: str | Path) -> None:
    """Refuse a URL where a path is wanted.

    Raises:
        UserError: says how to get the data here.
    """
    if found := re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+):/+(?=.)", str(path)):  # a single letter is a drive of Windows
        url = f"{found[1]}://{str(path)[found.end() :]}"
        raise UserError(
            f"{what} is {url}, and URLs are not read: copy the files to this machine (such as with `aws s3 sync` or "
            "`rclone copy`) or mount the store, and name that folder"
        )


def require_something_to_train(
    online_loss: bool, target_loss: bool, consistency_loss: bool, gamma: float, target_gradient: bool
) -> None:
    """Refuse losses (Eq. 3) of which none has a gradient in the online network.

    The target loss has one only with `target_gradient`, the consistency loss only with a weight above 0.

    Raises:
        UserError: nothing would be trained.
    """
    if not (online_loss or (target_loss and target_gradient) or (consistency_loss and gamma)):
        raise UserError(
            "nothing would train the online network: set online_loss, consistency_loss with a gamma above 0, "
            "or target_loss with target_gradient"
        )


def require_mask_ratio(ratio: float) -> None:
    """Refuse a share of hidden patches that hides nothing or everything.

    Raises:
        UserError: it is not above 0 and below 1.
    """
    if not 0 < ratio < 1:
        raise UserError(f"mask_ratio must be above 0 and below 1 (something hidden, something seen), but is {ratio}")
