"""What every training does in an optimizer step, whatever it trains: the base of `Pretraining` and `Finetuning`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from videomac.config import TrainConfig
from videomac.data.loader import TrainingData
from videomac.train import optim
from videomac.utils.seeding import mixed_seed


class TrainModule(pl.LightningModule):
    """Loader, seed, learning rate and numbers of a step; a subclass adds the loss and what moves after the step.

    To Lightning a run is one pass over one long loader, whose sampler knows the epochs: so a run continues wherever its
    step counter stands.

    Args:
        model: what is trained.
        config: the options.
        data: what it is trained on.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, data: TrainingData) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.data = data
        self.metrics: dict[str, float] = {}
        """Numbers of the last optimizer step, over all micro-batches and devices."""
        self._parts: list[dict[str, Tensor]] = []

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """The rest of the run, from the trainer's step on."""
        return self.data.loader(self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def step_seed(self, batch_idx: int) -> int:
        """The seed of a micro-batch: what is random in a step depends on the step alone, not on what came before."""
        micro_batch = batch_idx % self.config.accumulate
        return mixed_seed(self.config.seed, self.trainer.global_step, self.global_rank, micro_batch)

    def note(self, batch: Mapping[str, Tensor], **numbers: Tensor) -> None:
        """Keep the numbers of a micro-batch, and how many of its samples stand in for unreadable ones."""
        skipped = batch["skipped"].sum() * self.config.accumulate * self.trainer.world_size
        parts = {**numbers, "skipped": skipped}
        self._parts.append({name: value.detach().float() for name, value in parts.items()})

    def set_learning_rate(self, optimizer: Optimizer) -> float:
        """Give every parameter group the schedule's learning rate, times its own `lr_scale` if it has one."""
        config, data = self.config, self.data
        learning_rate = optim.learning_rate_at(
            self.trainer.global_step,
            data.total_steps,
            round(config.warmup * data.steps_per_epoch),
            peak=optim.scaled_lr(config.base_lr, config.global_batch_size),
            minimum=config.min_lr,
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        return learning_rate

    def reduced(self) -> dict[str, float]:
        """Means of what was noted in this step, over its micro-batches and all devices."""
        names = list(self._parts[0])
        means = torch.stack([torch.stack([part[name] for name in names]) for part in self._parts]).mean(0)
        self._parts.clear()
        values: Any = self.trainer.strategy.reduce(means, reduce_op="mean")
        return dict(zip(names, values.tolist(), strict=True))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what tells whether the run is resumed on the same data."""
        checkpoint["data"] = self.data.identity
