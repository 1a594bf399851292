"""Fine-tuning: a thin LightningModule around a timm classifier, and the command (ConvNeXt V2's recipe).

As in pre-training, a run is one pass over one long loader, and what happens around a step is in callbacks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from videomac import optim
from videomac.callbacks import Curves, Speed
from videomac.classify.config import FinetuneConfig
from videomac.classify.images import ClassificationData, find_images, seeded
from videomac.classify.layer_decay import parameter_groups
from videomac.classify.network import build_network
from videomac.classify.report import finish
from videomac.classify.validation import Validation
from videomac.errors import UserError
from videomac.training_run import (
    build_trainer,
    fit,
    is_first_process,
    mixed_seed,
    prepare_folder,
    start_step,
)

COLUMNS = (
    *("step", "epoch", "loss", "learning_rate", "skipped_images"),
    *("top1", "top5", "val_loss", "ema_top1", "ema_top5", "ema_val_loss"),
)
"""Columns of `metrics.csv`; the second line is filled at the end of each epoch."""

RUN_FILES = (
    *("config.yaml", "metrics.csv", "metrics.json", "environment.json", "report.html"),
    *("classes.csv", "curves.png", "confusion.png"),
    *("checkpoints", "classifier", "tensorboard", "wandb"),
)
"""What a run makes in its out folder, and all that `overwrite` deletes."""


class Finetuning(pl.LightningModule):
    """One optimizer step: mixing, loss, AdamW with layer decay, learning rate, moving average.

    Args:
        model: a timm network with its classifier.
        config: the options.
        data: the images.
    """

    def __init__(self, model: nn.Module, config: FinetuneConfig, data: ClassificationData) -> None:
        super().__init__()
        self.model, self.config, self.data = model, config, data
        self.ema = ModelEmaV3(model, decay=config.ema_decay) if config.ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        self.mixup = None
        self.loss: nn.Module = LabelSmoothingCrossEntropy(config.label_smoothing)  # type: ignore[no-untyped-call]
        if config.mixup or config.cutmix:
            self.mixup = Mixup(  # type: ignore[no-untyped-call]
                config.mixup,
                config.cutmix,
                label_smoothing=config.label_smoothing,
                num_classes=len(data.classes),
            )
            self.loss = SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
        self.metrics: dict[str, float] = {}
        """Numbers of the last optimizer step, over all micro-batches and devices."""
        self._parts: list[Tensor] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """The rest of the run, from the trainer's step on."""
        return self.data.loader(self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def configure_optimizers(self) -> Optimizer:
        """AdamW on groups of equal layer and weight decay."""
        config = self.config
        groups: list[Any] = [
            *parameter_groups(
                self.model,
                weight_decay=config.weight_decay,
                layer_decay=config.layer_decay,
                grouping=config.layer_grouping,
            )
        ]
        return AdamW(groups, lr=0.0, betas=config.betas)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one micro-batch; mixing and drop path depend on the step alone, not on what came before."""
        step, micro_batch = self.trainer.global_step, batch_idx % self.config.accumulate
        seed = mixed_seed(self.config.seed, step, self.global_rank, micro_batch)
        images, labels = batch["image"], batch["label"]
        if self.mixup is not None:
            with seeded(seed):
                images, labels = self.mixup(images, labels)
        torch.manual_seed(seed)
        logits: Tensor = self.model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss: Tensor = self.loss(logits, labels)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is not finite at step {step}: lower base_lr, or use --precision 32-true; the last good "
                f"checkpoint is in {self.config.out / 'checkpoints'}"
            )
        skipped = batch["skipped"].sum() * self.config.accumulate * self.trainer.world_size
        self._parts.append(torch.stack([loss.detach().float(), skipped.float()]))
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step with the schedule's learning rate, scaled in each layer, then move the average."""
        step, config, data = self.trainer.global_step, self.config, self.data
        peak = optim.scaled_lr(config.base_lr, config.global_batch_size)
        warmup_steps = round(config.warmup * data.steps_per_epoch)
        learning_rate = optim.learning_rate_at(step, data.total_steps, warmup_steps, peak, config.min_lr)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.ema is not None:
            self.ema.update(self.model)
        loss, skipped = self.trainer.strategy.reduce(torch.stack(self._parts).mean(0), reduce_op="mean").tolist()
        self._parts.clear()
        self.metrics = {"loss": loss, "learning_rate": learning_rate, "skipped_images": round(skipped)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what tells whether it is resumed on the same data, and what the classifier's outputs mean."""
        checkpoint["data"] = self.data.identity
        checkpoint["classes"] = self.data.classes


def finetune(**options: Any) -> dict[str, Any]:
    """Train a backbone to classify images: `videomac.finetune(data=..., backbone=..., out=..., ...)`.

    Args:
        **options: the fields of `FinetuneConfig`, which are the flags of `videomac finetune`.

    Returns:
        what the run leaves in `metrics.json`: `top1`, `top5` (shares of 1) and `val_loss` of the last weights,
        `ema_*` of their moving average, ...

    Raises:
        UserError: an option that cannot work, unusable data or weights, an out folder in use.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    return run(FinetuneConfig(**options))


def run(config: FinetuneConfig) -> dict[str, Any]:
    """Run one fine-tuning; see `finetune`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folders = find_images(config.data)
    network = build_network(
        config.backbone,
        pretrained=config.pretrained,
        which=config.network,
        image_size=config.image_size,
        seed=config.seed,
        drop_path=config.drop_path,
        num_classes=len(folders.classes),
    )
    data = ClassificationData(config, folders, network)
    if is_first_process():
        prepare_folder(config, data, RUN_FILES)
    speed, validation = Speed("images"), Validation()
    trainer, stop = build_trainer(
        config,
        data,
        [validation, Curves(config.out / "metrics.csv", speed, COLUMNS)],
        speed,
        title="fine-tuning",
        start_step=start_step(config),
    )
    module = Finetuning(network.model, config, data)
    if module.mixup is not None and config.global_batch_size // (trainer.world_size * config.accumulate) % 2:
        raise UserError(
            f"mixup and cutmix mix images in pairs, but global_batch_size {config.global_batch_size} gives each of "
            f"{trainer.world_size * config.accumulate} micro-batches an odd number: change it, or set both to 0"
        )
    if not fit(config, data, trainer, stop, module, command="finetune"):
        return {}
    return finish(config, data, network, module.ema, validation, speed)
