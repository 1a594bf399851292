"""Pre-training: a thin LightningModule around `VideoMAC`, and the command.

To Lightning a run is one pass over one long loader, whose sampler knows the epochs: so a run continues wherever its
step counter stands. Whatever happens around a step (curves, checkpoints, pictures) is in `callbacks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import AdamW, Optimizer

from videomac.errors import UserError
from videomac.models import ema
from videomac.models.checkpoint import load_backbone, load_videomac, save_backbone
from videomac.models.videomac import VideoMAC, VideoMACOutput
from videomac.train import optim
from videomac.train.callbacks import GracefulStop, MetricsLogger, Throughput
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.diagnostics import require_finite
from videomac.train.module import TrainModule
from videomac.train.trainer import build_trainer, fit, is_first_process, prepare_folder, start_step
from videomac.train.validation import ReconstructionPreview, load_held_out
from videomac.utils.plots import loss_curves
from videomac.utils.run_dir import read_rows, table, write_metrics

LOSSES = ("loss", "online_loss", "target_loss", "consistency_loss")
"""Fields of `VideoMACOutput` that are written down."""


class Pretraining(TrainModule):
    """One optimizer step of the method: losses, AdamW, learning rate, target network."""

    model: VideoMAC
    config: PretrainConfig

    def configure_optimizers(self) -> Optimizer:
        """AdamW; biases and norms do not decay."""
        groups: list[Any] = [*optim.parameter_groups(self.model, self.config.weight_decay)]
        return AdamW(groups, lr=0.0, betas=self.config.betas, fused=self.device.type == "cuda")

    def transfer_batch_to_device(self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int) -> Any:
        """All but the mask, which the encoder's tables are made of: read back from a GPU it would stall it."""
        moved = super().transfer_batch_to_device({**batch, "mask": batch["mask"][:0]}, device, dataloader_idx)
        return {**moved, "mask": batch["mask"]}

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        torch.manual_seed(self.step_seed(batch_idx))
        output: VideoMACOutput = self.model(batch["pair"], batch["mask"])
        step = self.trainer.global_step
        require_finite(self.model, batch["pair"], batch["mask"], output.loss, step=step, out=self.config.out)
        self.note(batch, **{name: getattr(output, name) for name in (*LOSSES, "feature_std")})
        return output.loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step with the schedule's learning rate, then move the target network."""
        step, config = self.trainer.global_step, self.config
        learning_rate = self.set_learning_rate(optimizer)
        # The released code starts the momentum's schedule again in every epoch, so that it never leaves its start.
        end = 1.0 if config.preset == "paper" else config.momentum
        momentum = ema.momentum_at(step, self.data.total_steps, config.momentum, end)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.model.update_target(momentum)
        numbers = self.reduced()
        self.metrics = {name: numbers[name] for name in (*LOSSES, "feature_std")}
        self.metrics |= {"learning_rate": learning_rate, "momentum": momentum}
        self.metrics["skipped_pairs"] = round(numbers["skipped"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["videomac"] = {**self.model.arguments, "image_size": list(self.config.size)}


def pretrain(**options: Any) -> dict[str, Any]:
    """Pre-train a timm ConvNet on a folder of videos: `videomac.pretrain(data=..., backbone=..., out=..., ...)`.

    Args:
        **options: the fields of `PretrainConfig`, which are the flags of `videomac pretrain`.

    Returns:
        what the run leaves in `metrics.json`.

    Raises:
        UserError: an option that cannot work, unusable data, an out folder in use, a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    return run(PretrainConfig(**options))


def run(config: PretrainConfig) -> dict[str, Any]:
    """Run one pre-training; see `pretrain`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    model = build_model(config)
    data = PretrainingData(config, model)
    if is_first_process():
        prepare_folder(config, data, RUN_FILES)
    session = build_run(config, data, model, start_step(config))
    module = Pretraining(model, config, data)
    if not fit(config, data, session.trainer, session.stop, module, command="pretrain"):
        return {}
    return finish(config, data, model, session)


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
    speed: Throughput
    pictures: ReconstructionPreview
    stop: GracefulStop


def build_run(config: PretrainConfig, data: PretrainingData, model: VideoMAC, start_step: int) -> Run:
    """Set up Lightning's trainer.

    Raises:
        UserError: a `trainer` option that it does not take, or a batch that does not divide among the devices.
    """
    held_out = None
    if data.held_out and is_first_process():
        held_out = load_held_out(data.held_out, config.held_out, config.frame_gap, config.size, model)
    speed = Throughput()
    pictures = ReconstructionPreview(model, held_out)
    callbacks = [pictures, MetricsLogger(config.out / "metrics.csv", speed)]
    trainer, stop = build_trainer(config, data, callbacks, speed, title="pre-training", start_step=start_step)
    return Run(trainer, speed, pictures, stop)


def finish(config: PretrainConfig, data: PretrainingData, model: VideoMAC, run: Run) -> dict[str, Any]:
    """Export the online network, draw the curves, write `metrics.json` (means over the last epoch), print a summary."""
    save_backbone(model, config.out / "backbone", name=config.backbone)
    loss_curves(config.out / "metrics.csv", config.out / "losses.png")
    rows = read_rows(config.out / "metrics.csv", last_step=data.total_steps)
    last_epoch = rows[-data.steps_per_epoch :]
    metrics: dict[str, Any] = {key: sum(float(row[key]) for row in last_epoch) / len(last_epoch) for key in LOSSES}
    metrics["pairs_per_second"] = run.speed.rate
    metrics["data_wait_share"] = run.speed.data_wait
    if run.pictures.result is not None:
        metrics["held_out_loss"] = run.pictures.result.loss
        metrics["held_out_zero_loss"] = run.pictures.result.zero_loss
    metrics["steps"] = data.total_steps
    metrics["videos"] = data.num_videos
    metrics["skipped_videos"] = data.num_skipped
    metrics["skipped_pairs"] = round(sum(float(row["skipped_pairs"]) for row in rows))
    write_metrics(config.out, metrics)
    print(f"\n{config.backbone}, pre-trained for {config.epochs} epochs ({data.total_steps} steps):")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    print(f"\nIn {config.out}:")
    print(
        table(
            [
                ("backbone/", "the weights, for timm.create_model('local-dir:...', pretrained=True)"),
                ("checkpoints/", "last.ckpt, for `videomac reconstruct` and --init_from"),
                ("losses.png", "the curves of metrics.csv"),
                *([("reconstruction.png", "held-out pairs")] if run.pictures.result else []),
            ]
        )
    )
    return metrics
