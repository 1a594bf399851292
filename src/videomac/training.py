"""Pre-training: a thin LightningModule around `VideoMAC`, and the command.

To Lightning a run is one pass over one long loader, whose sampler knows the epochs: so a run continues wherever its
step counter stands. Whatever happens around a step (curves, checkpoints, pictures) is in `callbacks.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from videomac import ema, optim
from videomac.config import PretrainConfig
from videomac.diagnosis import require_finite
from videomac.model import VideoMAC, VideoMACOutput
from videomac.training_data import TrainingData
from videomac.training_report import LOSSES, finish
from videomac.training_run import fit, is_first_process, mixed_seed, prepare_folder, start_step
from videomac.training_setup import RUN_FILES, build_model, build_run


class Pretraining(pl.LightningModule):
    """One optimizer step of the method: losses, AdamW, learning rate, target network.

    Args:
        model: what is trained.
        config: the options.
        data: the training pairs.
    """

    def __init__(self, model: VideoMAC, config: PretrainConfig, data: TrainingData) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.data = data
        self.metrics: dict[str, float] = {}
        """Numbers of the last optimizer step, over all micro-batches and devices."""
        self._parts: list[Tensor] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """The rest of the run, from the trainer's step on."""
        return self.data.loader(self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> Optimizer:
        """AdamW; biases and norms do not decay."""
        groups: list[Any] = [*optim.parameter_groups(self.model, self.config.weight_decay)]
        return AdamW(groups, lr=0.0, betas=self.config.betas, fused=self.device.type == "cuda")

    def transfer_batch_to_device(self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int) -> Any:
        """All but the mask, which the encoder's tables are made of: read back from a GPU it would stall it."""
        moved = super().transfer_batch_to_device({**batch, "mask": batch["mask"][:0]}, device, dataloader_idx)
        return {**moved, "mask": batch["mask"]}

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one micro-batch; the networks' own randomness depends on the step alone, not on what came before."""
        step, micro_batch = self.trainer.global_step, batch_idx % self.config.accumulate
        torch.manual_seed(mixed_seed(self.config.seed, step, self.global_rank, micro_batch))
        output: VideoMACOutput = self.model(batch["pair"], batch["mask"])
        require_finite(self.model, batch["pair"], batch["mask"], output.loss, step=step, out=self.config.out)
        parts = [getattr(output, name) for name in (*LOSSES, "feature_std")]
        skipped = batch["skipped"].sum() * self.config.accumulate * self.trainer.world_size
        self._parts.append(torch.stack([part.detach().float() for part in parts] + [skipped.float()]))
        return output.loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step with the schedule's learning rate, then move the target network."""
        step, config, data = self.trainer.global_step, self.config, self.data
        peak = optim.scaled_lr(config.base_lr, config.global_batch_size)
        warmup_steps = round(config.warmup * data.steps_per_epoch)
        learning_rate = optim.learning_rate_at(step, data.total_steps, warmup_steps, peak, config.min_lr)
        # The released code starts the momentum's schedule again in every epoch, so that it never leaves its start.
        end = 1.0 if config.preset == "paper" else config.momentum
        momentum = ema.momentum_at(step, data.total_steps, config.momentum, end)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.model.update_target(momentum)
        values = self.trainer.strategy.reduce(torch.stack(self._parts).mean(0), reduce_op="mean").tolist()
        self._parts.clear()
        self.metrics = dict(zip((*LOSSES, "feature_std"), values, strict=False))
        self.metrics |= {"learning_rate": learning_rate, "momentum": momentum, "skipped_pairs": round(values[-1])}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model, and what tells whether it is resumed on the same data."""
        checkpoint["videomac"] = {**self.model.arguments, "image_size": list(self.config.size)}
        checkpoint["data"] = self.data.identity


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
    data = TrainingData(config, model)
    if is_first_process():
        prepare_folder(config, data, RUN_FILES)
    session = build_run(config, data, model, start_step(config))
    module = Pretraining(model, config, data)
    if not fit(config, data, session.trainer, session.stop, module, command="pretrain"):
        return {}
    return finish(config, data, model, session)
