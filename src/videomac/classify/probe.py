"""`videomac probe`: what frozen features are worth, by a linear probe and by k-NN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from videomac.classify.config import ProbeConfig
from videomac.classify.features import Features, compute_features
from videomac.classify.images import find_images
from videomac.classify.knn import knn_votes
from videomac.classify.linear_probe import fit_probe
from videomac.classify.network import build_network
from videomac.classify.plots import draw_confusion
from videomac.classify.validation import Score
from videomac.config import save_config
from videomac.errors import UserError
from videomac.utils.run_dir import prepare_out_dir, table, write_metrics, write_rows

RUN_FILES = (
    *("config.yaml", "metrics.json", "environment.json", "report.html", "metrics.csv"),
    *("confusion.png", "features"),
)
"""What a probe makes in its out folder, and all that `overwrite` deletes."""


def probe(**options: Any) -> dict[str, Any]:
    """Judge a frozen backbone: `videomac.probe(data=..., backbone=..., out=..., ...)`.

    Args:
        **options: the fields of `ProbeConfig`, which are the flags of `videomac probe`.

    Returns:
        what is left in `metrics.json`: `knn_top1`, `linear_top1`, `linear_top5` (shares of 1), ...

    Raises:
        UserError: an option that cannot work, unusable data or weights, an out folder in use.
    """
    return run(ProbeConfig(**options))


def run(config: ProbeConfig) -> dict[str, Any]:
    """Compute or read the features, fit, score, draw; see `probe`."""
    folders = find_images(config.data)
    if config.k > len(folders.train):
        raise UserError(f"k is {config.k}, but {config.data / 'train'} holds {len(folders.train)} images: lower k")
    network = build_network(
        config.backbone,
        pretrained=config.pretrained,
        which=config.network,
        image_size=config.image_size,
        seed=config.seed,
    )
    if not config.resume:
        prepare_out_dir(config.out, RUN_FILES, overwrite=config.overwrite)
    elif not (config.out / "features").is_dir():
        raise UserError(f"there are no features to use in {config.out}: leave --resume out")
    features = compute_features(config, folders, network)
    save_config(config)
    train, val, classes = features["train"], features["val"], len(folders.classes)
    votes = knn_votes(
        train.values, train.labels, val.values, classes=classes, k=config.k, temperature=config.temperature
    )
    linear = fit_probe(train.values, train.labels, classes=classes, seed=config.seed)
    knn_score, linear_score = _score(votes, val), _score(linear.logits(val.values), val)
    metrics = {
        "knn_top1": knn_score.numbers()["top1"],
        "linear_top1": linear_score.numbers()["top1"],
        "linear_top5": linear_score.numbers()["top5"],
        "linear_penalty": linear.penalty,
        "channels": train.values.shape[1],
        "classes": classes,
        "train_images": len(train.labels),
        "val_images": len(val.labels),
        "skipped_images": train.skipped + val.skipped,
    }
    rows = [
        {"class": name, "images": images, "knn_top1": nearest / max(images, 1), "linear_top1": hit / max(images, 1)}
        for name, images, nearest, hit in zip(
            folders.classes,
            linear_score.confusion.sum(1).tolist(),
            knn_score.confusion.diagonal().tolist(),
            linear_score.confusion.diagonal().tolist(),
            strict=True,
        )
    ]
    write_rows(config.out / "metrics.csv", rows)
    draw_confusion(linear_score.confusion, folders.classes, config.out / "confusion.png", title="linear probe")
    write_metrics(config.out, metrics)
    print(f"\n{network.name}, {network.weights}, frozen, at {config.image_size} pixels:")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    print(f"\nIn {config.out}:")
    print(
        table(
            [
                ("features/", "one row per image; --resume uses them again"),
                ("metrics.csv", "accuracy of each class"),
                ("confusion.png", "which classes the linear probe takes for which"),
            ]
        )
    )
    return metrics


def _score(logits: Tensor, images: Features) -> Score:
    score = Score.zero(logits.shape[1], torch.device("cpu"))
    score.add(logits, images.labels)
    return score
