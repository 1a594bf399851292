"""What a finished fine-tuning leaves: the classifier, pictures, final numbers, a summary."""

from __future__ import annotations

from typing import Any

from timm.models import save_for_hf
from timm.utils import ModelEmaV3
from torch import nn

from videomac.classify.config import FinetuneConfig
from videomac.classify.images import ClassificationData
from videomac.classify.network import Network
from videomac.classify.plots import draw_confusion, draw_curves
from videomac.classify.validation import Validation
from videomac.models.official import StageNormConvNeXt
from videomac.train.callbacks import Throughput
from videomac.utils.run_dir import read_rows, table, write_metrics, write_rows


def finish(
    config: FinetuneConfig,
    data: ClassificationData,
    network: Network,
    ema: ModelEmaV3 | None,
    validation: Validation,
    speed: Throughput,
) -> dict[str, Any]:
    """Save the better of the last weights and their average, draw, write `metrics.json`, print a summary."""
    numbers = {name: score.numbers() for name, score in validation.scores.items()}
    better = max(numbers, key=lambda name: numbers[name]["top1"])
    confusion = validation.scores[better].confusion.cpu()
    rows = read_rows(config.out / "metrics.csv", last_step=data.total_steps)
    last_epoch = rows[-data.steps_per_epoch :]
    metrics: dict[str, Any] = {**numbers["last"]}
    metrics |= {f"ema_{key}": value for key, value in numbers.get("ema", {}).items()}
    metrics |= {
        "classifier": better,
        "loss": sum(float(row["loss"]) for row in last_epoch) / len(last_epoch),
        "images_per_second": speed.rate,
        "data_wait_share": speed.data_wait,
        "steps": data.total_steps,
        "classes": len(data.classes),
        "train_images": len(data.train),
        "val_images": int(confusion.sum()),
        "skipped_images": sum(round(float(row["skipped_images"])) for row in rows),
        "skipped_val_images": validation.unreadable,
    }
    model = ema.module if better == "ema" and ema is not None else network.model
    saved = _save(model, config, data, network)
    draw_curves(config.out / "metrics.csv", config.out / "curves.png", data.steps_per_epoch)
    draw_confusion(confusion, data.classes, config.out / "confusion.png", title="fine-tuned")
    counts, right = confusion.sum(1), confusion.diagonal()
    write_rows(
        config.out / "classes.csv",
        [
            {"class": name, "images": int(count), "top1": float(hit) / max(int(count), 1)}
            for name, count, hit in zip(data.classes, counts, right, strict=True)
        ],
    )
    write_metrics(config.out, metrics)
    print(f"\n{network.name}, {network.weights}, fine-tuned for {config.epochs} epochs ({data.total_steps} steps):")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    print(f"\nIn {config.out}:")
    print(
        table(
            [
                *([("classifier/", "for timm.create_model('local-dir:...', pretrained=True)")] if saved else []),
                ("checkpoints/", "last.ckpt, for --resume"),
                ("curves.png", "loss, accuracy and learning rate of metrics.csv"),
                ("confusion.png", "which classes are taken for which; classes.csv has each class's accuracy"),
            ]
        )
    )
    return metrics


def _save(model: nn.Module, config: FinetuneConfig, data: ClassificationData, network: Network) -> bool:
    """Write the classifier as timm opens it, unless timm has no such network."""
    if isinstance(model, StageNormConvNeXt):
        return False
    size = config.image_size
    pretrained_cfg = {
        **{"tag": "videomac", "input_size": (3, size, size), "crop_pct": config.crop_pct},
        **{"mean": network.mean, "std": network.std, "interpolation": "bicubic"},
    }
    save_for_hf(
        model.cpu(),
        str(config.out / "classifier"),
        model_config={"pretrained_cfg": pretrained_cfg, "label_names": data.classes},
        safe_serialization=True,
    )
    return True
