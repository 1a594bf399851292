"""The network to fine-tune or probe: timm's own module, with or without a classifier, and how it wants its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers import DropPath, trunc_normal_
from torch import nn

from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from videomac.errors import UserError
from videomac.models.resolve import resolve

HEAD_STD = 2e-5
"""Deviation of the new classifier's weights, small enough for the first predictions to be even (ConvNeXt V2)."""


@dataclass(frozen=True)
class Network:
    """A timm network.

    Attributes:
        model: the module.
        name: timm's name of the architecture.
        weights: where they are from, in words.
        mean: of the pixels that it was trained on, RGB in [0, 1].
        std: their standard deviation.
    """

    model: nn.Module
    name: str
    weights: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_network(
    backbone: str,
    *,
    pretrained: bool | None,
    which: Literal["online", "target"],
    image_size: int,
    seed: int,
    drop_path: float = 0.0,
    num_classes: int = 0,
) -> Network:
    """Make the network that a user names.

    Args:
        backbone: see `videomac.models.resolve`.
        pretrained: take timm's weights for a timm name; None: if it has a tag.
        which: network of a pre-training run.
        image_size: side of the images in pixels, for networks that must know it.
        seed: of random weights, which the new classifier has in any case.
        drop_path: stochastic depth rate.
        num_classes: of the classifier; 0 for none.

    Raises:
        UserError: nothing of that name, weights of another network, a network that cannot be used so.
    """
    options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}
    with torch.random.fork_rng(devices=[]):
        model, weights = resolve(
            backbone,
            pretrained=pretrained,
            network=which,
            seed=seed,
            image_size=image_size,
            **options,
        )
        if not drop_path:  # that of a pre-training run ends with it
            for module in model.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = 0.0
        if num_classes:
            _add_classifier(model, num_classes, backbone)
    cfg: Any = model.pretrained_cfg
    mean, std = cfg["mean"] or IMAGENET_MEAN, cfg["std"] or IMAGENET_STD
    return Network(model.train(), cfg["architecture"], weights, tuple(mean), tuple(std))


def _add_classifier(model: Any, num_classes: int, backbone: str) -> None:
    model.reset_classifier(num_classes)
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        raise UserError(f"backbone {backbone} has no single linear classifier: take another network")
    trunc_normal_(classifier.weight, std=HEAD_STD)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)
