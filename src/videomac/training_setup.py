"""Everything a pre-training run needs before its first step: model, out folder, trainer."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from videomac import heldout
from videomac.callbacks import Bar, Checkpoints, Curves, GracefulStop, Lines, Pictures, Speed
from videomac.checkpoint import load_backbone, load_videomac
from videomac.config import PretrainConfig, as_plain, changed_keys, save_config
from videomac.errors import UserError
from videomac.files import read_torch
from videomac.model import VideoMAC
from videomac.outputs import claim
from videomac.training_data import TrainingData

RUN_FILES = (
    *("config.yaml", "metrics.csv", "metrics.json", "losses.png", "reconstruction.png"),
    *("checkpoints", "backbone", "tensorboard", "wandb"),
)
"""What a run makes in its out folder, and all that `overwrite` deletes."""


def build_model(config: PretrainConfig) -> VideoMAC:
    """Build the networks from the seed, or from `init_from`.

    Raises:
        UserError: an unknown or unusable backbone, options that do not fit it, weights of another network.
    """
    torch.manual_seed(config.seed)
    try:
        model = VideoMAC(
            config.backbone,
            mask_ratio=config.mask_ratio,
            patch_size=config.patch_size,
            symmetric=config.symmetric,
            decoder_width=config.decoder_width,
            decoder_depth=config.decoder_depth,
            gamma=config.gamma,
            norm_pix_loss=config.norm_pix_loss,
            mode=config.mode,
            preset=config.preset,
            online_loss=config.online_loss,
            target_loss=config.target_loss,
            consistency_loss=config.consistency_loss,
            target_gradient=config.target_gradient,
            backbone_args={"drop_path_rate": config.drop_path} if config.drop_path else None,
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"backbone {config.backbone}: {error}") from error
    if config.init_from is not None and not config.resume:
        _take_weights(model, config.init_from)
    return model


def _take_weights(model: VideoMAC, path: Path) -> None:
    exported = (path / "config.json").is_file()
    try:
        if exported:
            for network in (model.online, model.target):
                network.encoder.backbone.load_state_dict(load_backbone(path).state_dict())
        else:
            model.load_state_dict(load_videomac(path).state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"init_from {path} holds another network than backbone and decoder ask for: {reason}"
        ) from error


def prepare_folder(config: PretrainConfig, data: TrainingData) -> Path | None:
    """Claim the out folder, or find the checkpoint to resume from; write the resolved config.

    Raises:
        UserError: the folder holds a run, there is nothing to resume, or the run is finished or another one.
    """
    if not config.resume:
        claim(config.out, RUN_FILES, overwrite=config.overwrite)
        save_config(config, config.out / "config.yaml")
        return None
    checkpoint = config.out / "checkpoints" / "last.ckpt"
    if not checkpoint.exists():
        raise UserError(
            f"nothing to resume in {config.out}: there is no {checkpoint}; leave out --resume to start a run"
        )
    if changed := changed_keys(config, config.out / "config.yaml"):
        raise UserError(
            f"cannot resume {config.out} with other settings: {', '.join(changed)} differ from its config.yaml; "
            f"use `--config {config.out}/config.yaml --resume`, or another --out for a new run"
        )
    state = read_torch(checkpoint)
    if state["data"] != data.identity:
        raise UserError(
            f"cannot resume {config.out}: the videos in {config.data} are not those that it was trained on "
            f"({state['data']['videos']} then, {data.num_videos} now, or other names or lengths)"
        )
    if state["global_step"] >= data.total_steps:
        raise UserError(f"the run in {config.out} is finished, after {data.total_steps} steps: nothing to resume")
    return checkpoint


def is_first_process() -> bool:
    """Whether this is the process that writes, before and after the trainer knows of the others."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0


@dataclass
class Run:
    """A trainer, and the callbacks that are asked for numbers when it has ended."""

    trainer: Trainer
    speed: Speed
    pictures: Pictures
    stop: GracefulStop


def build_run(config: PretrainConfig, data: TrainingData, model: VideoMAC, start_step: int) -> Run:
    """Set up Lightning's trainer.

    Raises:
        UserError: a `trainer` option that it does not take, or a batch that does not divide among the devices.
    """
    held_out = None
    if data.held_out and is_first_process():
        held_out = heldout.load(data.held_out, config.held_out, config.frame_gap, config.size, model)
    speed = Speed()
    pictures = Pictures(held_out)
    checkpoints = Checkpoints(
        config.out / "checkpoints", minutes=config.save_minutes, steps=config.save_steps, keep_epochs=config.keep_epochs
    )
    stop = GracefulStop(checkpoints)
    # The order matters: the numbers of a step are complete, then written, then vouched for by a checkpoint.
    callbacks: list[Callback] = [pictures, Curves(config.out / "metrics.csv", speed), checkpoints, stop]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(Bar(speed) if sys.stdout.isatty() else Lines(speed))
    arguments = {
        "max_epochs": 1,
        "max_steps": data.total_steps,
        "precision": config.precision,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "accumulate_grad_batches": config.accumulate,
        "callbacks": [*callbacks, speed],
        "logger": _loggers(config, start_step),
        "default_root_dir": config.out,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    try:
        trainer = Trainer(**{**arguments, **config.trainer})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"the trainer refuses its options: {' '.join(str(error).split())}") from error
    shares = trainer.world_size * config.accumulate
    if config.global_batch_size % shares:
        raise UserError(
            f"global_batch_size {config.global_batch_size} does not divide into {trainer.world_size} devices times "
            f"{config.accumulate} micro-batches: make it a multiple of {shares}"
        )
    return Run(trainer, speed, pictures, stop)


def _loggers(config: PretrainConfig, start_step: int) -> list[Logger]:
    loggers: list[Logger] = [
        TensorBoardLogger(config.out, name="", version="tensorboard", purge_step=start_step + 1 if start_step else None)
    ]
    if config.wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("wandb is not installed: pip install 'videomac[wandb]', or leave out --wandb")
        loggers.append(WandbLogger(project="videomac", save_dir=config.out, config=as_plain(config)))
    return loggers
