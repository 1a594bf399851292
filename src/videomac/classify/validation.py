"""Scores of a classifier: top-1, top-5, loss and confusion matrix, after each epoch, over all processes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from videomac.classify.images import NO_LABEL, ClassificationData
from videomac.train.callbacks import StepCallback
from videomac.train.module import TrainModule


@dataclass
class Score:
    """Sums over the images seen so far; adding processes' sums gives the score of all their images.

    Attributes:
        confusion: images of each class (row) that were taken for each class (column).
        in_top5: images whose class is among the five most likely.
        loss: sum of the cross-entropies in nats.
    """

    confusion: Int[Tensor, "classes classes"]
    in_top5: Float[Tensor, ""]
    loss: Float[Tensor, ""]

    @classmethod
    def zero(cls, classes: int, device: torch.device) -> Score:
        """The score of no image."""
        counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
        nothing = torch.zeros((), dtype=torch.float64, device=device if device.type != "mps" else "cpu")
        return cls(counts, nothing, nothing.clone())

    def add(self, logits: Float[Tensor, "batch classes"], labels: Int[Tensor, "batch"]) -> None:
        """Count a batch; images with the label -1 are left out."""
        seen = labels != NO_LABEL
        logits, labels = logits[seen].float(), labels[seen]
        classes = logits.shape[1]
        pairs = labels * classes + logits.argmax(1)
        self.confusion += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
        top = logits.topk(min(5, classes), dim=1).indices
        self.in_top5 += (top == labels[:, None]).sum().to(self.in_top5)
        self.loss += F.cross_entropy(logits, labels, reduction="sum").to(self.loss)

    def numbers(self) -> dict[str, float]:
        """Shares of 1, and the mean cross-entropy; nothing seen is 0."""
        images = max(int(self.confusion.sum()), 1)
        top1 = int(self.confusion.diagonal().sum()) / images
        return {"top1": top1, "top5": self.in_top5.item() / images, "val_loss": self.loss.item() / images}


PARTS = ("confusion", "in_top5", "loss")
"""Of a score, what is added up over processes and kept."""


class Validation(StepCallback):
    """At each epoch's end: the last weights and their moving average on the images to evaluate."""

    def __init__(self, data: ClassificationData, networks: Mapping[str, nn.Module]) -> None:
        self.data, self.networks = data, networks
        self.scores: dict[str, Score] = {}
        """Of the last epoch: "last", and "ema" if there is a moving average."""
        self.unreadable = 0
        self._loader: Any = None

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the scores after the last step, from which the results are made should the run be ended before them."""
        if trainer.global_step == self.data.total_steps:
            parts = {name: {part: getattr(score, part).cpu() for part in PARTS} for name, score in self.scores.items()}
            checkpoint["validation"] = {"scores": parts, "unreadable": self.unreadable}

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Take them."""
        if (kept := checkpoint.get("validation")) is not None:
            self.scores = {name: Score(**parts) for name, parts in kept["scores"].items()}
            self.unreadable = kept["unreadable"]

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Evaluate; each process takes its share of the images."""
        data = self.data
        if not data.ends_epoch(trainer.global_step):
            return
        scores = {name: Score.zero(len(data.classes), module.device) for name in self.networks}
        skipped = torch.zeros((), device=module.device)
        self._loader = self._loader or data.val_loader(trainer.global_rank, trainer.world_size)
        module.model.eval()
        for batch in self._loader:
            images, labels = batch["image"].to(module.device), batch["label"].to(module.device)
            skipped += batch["skipped"].sum()
            with torch.inference_mode(), trainer.precision_plugin.val_step_context():
                for name, network in self.networks.items():
                    scores[name].add(network(trainer.precision_plugin.convert_input(images)), labels)
        module.model.train()
        for name, score in scores.items():
            for part in PARTS:
                setattr(score, part, _sum_over_processes(trainer, getattr(score, part)))
            prefix = "" if name == "last" else f"{name}_"
            module.add_numbers({prefix + key: value for key, value in score.numbers().items()})
        self.scores = scores
        self.unreadable = int(_sum_over_processes(trainer, skipped))


def _sum_over_processes(trainer: Trainer, value: Tensor) -> Tensor:
    total: Any = trainer.strategy.reduce(value, reduce_op="sum")
    return torch.as_tensor(total)
