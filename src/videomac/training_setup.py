"""What a pre-training run needs before its first step: model and trainer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from videomac import heldout
from videomac.callbacks import Curves, GracefulStop, Pictures, Speed
from videomac.checkpoint import load_backbone, load_videomac
from videomac.config import PretrainConfig
from videomac.errors import UserError
from videomac.model import VideoMAC
from videomac.training_data import TrainingData
from videomac.training_run import build_trainer, is_first_process

RUN_FILES = (
    *("config.yaml", "metrics.csv", "metrics.json", "environment.json", "losses.png", "reconstruction.png"),
    *("report.html", "checkpoints", "backbone", "tensorboard", "wandb"),
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
    callbacks = [pictures, Curves(config.out / "metrics.csv", speed)]
    trainer, stop = build_trainer(config, data, callbacks, speed, title="pre-training", start_step=start_step)
    return Run(trainer, speed, pictures, stop)
