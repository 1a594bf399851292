"""`videomac probe`: what frozen features are worth, by a linear probe and by k-NN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from videomac.classify.config import ProbeConfig
from videomac.classify.features import ImageFeatures, compute_features
from videomac.classify.images import find_images
from videomac.classify.knn import knn_votes
from videomac.classify.linear_probe import fit_probe
from videomac.classify.network import Network, build_network
from videomac.classify.plots import draw_confusion
from videomac.classify.validation import Score
from videomac.config import save_config
from videomac.errors import UserError
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, table, write_metrics, write_rows

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


@holds_out_dir
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
    judged = judge(features["train"], features["val"], len(folders.classes), config)
    write_rows(config.out / "metrics.csv", _rows_of_classes(judged, folders.classes))
    draw_confusion(judged.linear.confusion, folders.classes, config.out / "confusion.png", title="linear probe")
    write_metrics(config.out, judged.metrics)
    _print_summary(config, network, judged.metrics)
    return judged.metrics


@dataclass(frozen=True)
class Judgement:
    """What both classifiers score on the images to evaluate.

    Attributes:
        knn: of the k-NN classifier.
        linear: of the linear probe.
        metrics: what `metrics.json` holds.
    """

    knn: Score
    linear: Score
    metrics: dict[str, Any]


def judge(train: ImageFeatures, val: ImageFeatures, classes: int, config: ProbeConfig) -> Judgement:
    """Fit both classifiers to the features in `train` and score those in `val`."""
    votes = knn_votes(
        train.values, train.labels, val.values, classes=classes, k=config.k, temperature=config.temperature
    )
    linear_probe = fit_probe(train.values, train.labels, classes=classes, seed=config.seed)
    knn, linear = _score(votes, val), _score(linear_probe.logits(val.values), val)
    metrics = {
        "knn_top1": knn.numbers()["top1"],
        "linear_top1": linear.numbers()["top1"],
        "linear_top5": linear.numbers()["top5"],
        "linear_penalty": linear_probe.penalty,
        "channels": train.values.shape[1],
        "classes": classes,
        "train_images": len(train.labels),
        "val_images": len(val.labels),
        "skipped_images": train.skipped + val.skipped,
    }
    return Judgement(knn, linear, metrics)


def _score(logits: Tensor, images: ImageFeatures) -> Score:
    score = Score.zero(logits.shape[1], torch.device("cpu"))
    score.add(logits, images.labels)
    return score


def _rows_of_classes(judged: Judgement, classes: list[str]) -> list[dict[str, Any]]:
    """The rows of `metrics.csv`: accuracy of each class."""
    images = judged.linear.confusion.sum(1).tolist()
    knn, linear = (score.confusion.diagonal().tolist() for score in (judged.knn, judged.linear))
    return [
        {"class": name, "images": count, "knn_top1": near / max(count, 1), "linear_top1": hit / max(count, 1)}
        for name, count, near, hit in zip(classes, images, knn, linear, strict=True)
    ]


def _print_summary(config: ProbeConfig, network: Network, metrics: dict[str, Any]) -> None:
    print(f"\n{network.name}, weights: {network.weights}, frozen, at {config.image_size} pixels:")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    left = [
        ("features/", "one row per image; --resume uses them again"),
        ("metrics.csv", "accuracy of each class"),
        ("confusion.png", "which classes the linear probe takes for which"),
    ]
    print(f"\nIn {config.out}:\n{table(left)}")
