"""`videomac finetune`: a thin LightningModule around a timm classifier (ConvNeXt V2's recipe), and what it leaves.

As in pre-training, a run is one pass over one long loader, and what happens around a step is in callbacks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import save_for_hf
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from videomac.classify.config import FinetuneConfig
from videomac.classify.images import ClassificationData, find_images
from videomac.classify.network import Network, build_network
from videomac.classify.plots import draw_confusion, draw_curves
from videomac.classify.validation import Validation
from videomac.errors import UserError
from videomac.models.backbones import create_backbone, finer_stride
from videomac.models.checkpoint import require_finite
from videomac.models.official import StageNormConvNeXt
from videomac.train import optim
from videomac.train.callbacks import Throughput
from videomac.train.module import TrainModule
from videomac.train.resume import prepare_folder, require_out_dir, settle_resume
from videomac.train.trainer import at_work, build_run, fit, is_first_process
from videomac.utils.run_dir import read_rows, table, write_metrics, write_rows
from videomac.utils.seeding import seeded

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

RESULTS = ("curves.png", "confusion.png", "classes.csv", "environment.json", "metrics.json")
"""What `finish` makes of a run whose steps are done, the classifier first."""


class Finetuning(TrainModule):
    """One optimizer step: mixing, loss, AdamW with layer decay, learning rate, moving average."""

    config: FinetuneConfig
    data: ClassificationData
    unit = "images"

    def __init__(self, model: nn.Module, config: FinetuneConfig, data: ClassificationData) -> None:
        super().__init__(model, config, data)
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

    def configure_optimizers(self) -> Optimizer:
        """AdamW on groups of equal layer and weight decay."""
        config = self.config
        groups = optim.layer_decay_groups(
            self.model,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            grouping=config.layer_grouping,
        )
        return optim.adamw(groups, config)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one micro-batch; mixing and drop path depend on the step alone, not on what came before."""
        seed = self.step_seed(batch_idx)
        images, labels = batch["image"], batch["label"]
        if self.mixup is not None:
            with seeded(seed):
                images, labels = self.mixup(images, labels)
        torch.manual_seed(seed)
        logits: Tensor = self.model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss: Tensor = self.loss(logits, labels)
        self.note(batch, loss=loss)
        return self.weigh(batch, loss)

    def compute_again(self, batch: Mapping[str, Tensor]) -> None:
        """The forward pass of a micro-batch, without mixing."""
        self.model(batch["image"])

    def follow_weights(self, step: int) -> dict[str, float]:
        """Move the average."""
        if self.ema is not None:
            self.ema.update(self.model)
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the classifier's outputs mean."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = self.data.classes

    def networks(self) -> dict[str, nn.Module]:
        """What is evaluated: the "last" weights, and "ema", their moving average, if there is one."""
        return {"last": self.model} if self.ema is None else {"last": self.model, "ema": self.ema.module}


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
    with at_work(config):
        return _run(config)


def _run(config: FinetuneConfig) -> dict[str, Any]:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if config.accumulate == "auto":
        raise UserError("accumulate auto is for pretrain: give a number of micro-batches")
    if (numbers := settle_resume(config, RESULTS)) is not None:
        return numbers
    if is_first_process():
        require_out_dir(config, RUN_FILES)
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
    module = Finetuning(network.model, config, data)
    validation = Validation(data, module.networks())
    session = build_run(config, data, [validation], COLUMNS, title="fine-tuning")
    trainer = session.trainer
    if module.mixup is not None and config.global_batch_size % (2 * trainer.world_size * config.micro_batches):
        raise UserError(
            f"mixup and cutmix mix images in pairs, but global_batch_size {config.global_batch_size} gives each of "
            f"{trainer.world_size * config.micro_batches} micro-batches an odd number: change it, or set both to 0"
        )
    if is_first_process():
        prepare_folder(config, data, RUN_FILES, RESULTS, session.resumed)
    if not fit(config, session, module):
        return {}
    return finish(config, data, network, module.ema, validation, session.throughput)


def finish(
    config: FinetuneConfig,
    data: ClassificationData,
    network: Network,
    ema: ModelEmaV3 | None,
    validation: Validation,
    throughput: Throughput,
) -> dict[str, Any]:
    """Save the better of the last weights and their average, draw, write `metrics.json`, print a summary."""
    metrics = final_metrics(config, data, validation, throughput)
    better = metrics["classifier"]
    saved = _save(ema.module if better == "ema" and ema is not None else network.model, config, data, network)
    confusion = validation.scores[better].confusion.cpu()
    draw_curves(config.out / "metrics.csv", config.out / "curves.png", data.steps_per_epoch)
    draw_confusion(confusion, data.classes, config.out / "confusion.png", title="fine-tuned")
    counts, right = confusion.sum(1).tolist(), confusion.diagonal().tolist()
    write_rows(
        config.out / "classes.csv",
        [
            {"class": name, "images": count, "top1": hit / max(count, 1)}
            for name, count, hit in zip(data.classes, counts, right, strict=True)
        ],
    )
    write_metrics(config.out, metrics)
    _print_summary(config, data, network, metrics, saved)
    return metrics


def final_metrics(
    config: FinetuneConfig, data: ClassificationData, validation: Validation, throughput: Throughput
) -> dict[str, Any]:
    """What `metrics.json` holds: scores of both sets of weights, the last epoch's mean loss, counts, speed."""
    numbers = {name: score.numbers() for name, score in validation.scores.items()}
    better = max(numbers, key=lambda name: numbers[name]["top1"])
    rows = read_rows(config.out / "metrics.csv", last_step=data.total_steps)
    last_epoch = rows[-data.steps_per_epoch :]
    return {
        **numbers["last"],
        **{f"ema_{key}": value for key, value in numbers.get("ema", {}).items()},
        "classifier": better,
        "loss": sum(float(row["loss"]) for row in last_epoch) / len(last_epoch),
        "images_per_second": throughput.rate,
        "data_wait_share": throughput.data_wait,
        "steps": data.total_steps,
        "classes": len(data.classes),
        "train_images": len(data.train),
        "val_images": int(validation.scores[better].confusion.sum()),
        "skipped_images": sum(round(float(row["skipped_images"])) for row in rows),
        "skipped_val_images": validation.unreadable,
    }


def _save(model: nn.Module, config: FinetuneConfig, data: ClassificationData, network: Network) -> bool:
    """Write the classifier as timm opens it, unless timm has no such network."""
    if isinstance(model, StageNormConvNeXt):
        return False
    require_finite(model.state_dict(), network.name)
    size = config.image_size
    pretrained_cfg = {
        **{"tag": "videomac", "input_size": (3, size, size), "crop_pct": config.crop_pct},
        **{"mean": network.mean, "std": network.std, "interpolation": "bicubic"},
    }
    with seeded(0):
        plain = create_backbone(network.name)
    save_for_hf(
        model.cpu(),
        str(config.out / "classifier"),
        model_config={"pretrained_cfg": pretrained_cfg, "label_names": data.classes},
        model_args=finer_stride(model, plain),
        safe_serialization=True,
    )
    return True


def _print_summary(
    config: FinetuneConfig, data: ClassificationData, network: Network, metrics: dict[str, Any], saved: bool
) -> None:
    trained = f"fine-tuned for {config.epochs} epochs ({data.total_steps} steps)"
    print(f"\n{network.name}, weights: {network.weights}, {trained}:")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    left = [
        ("checkpoints/", "last.ckpt, for --resume"),
        ("curves.png", "loss, accuracy and learning rate of metrics.csv"),
        ("confusion.png", "which classes are taken for which; classes.csv has each class's accuracy"),
    ]
    if saved:
        left.insert(0, ("classifier/", "for timm.create_model('local-dir:...', pretrained=True)"))
    print(f"\nIn {config.out}:\n{table(left)}")
