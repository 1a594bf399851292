"""The network to fine-tune or probe: timm's own module, with or without a classifier, and how it wants its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.layers import DropPath, trunc_normal_
from torch import nn

from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import IMAGENET_MEAN, IMAGENET_STD, load_backbone

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
        std: their deviation.
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
        backbone: run folder, checkpoint or exported folder; else a timm name.
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
    path = Path(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if path.exists():
                model = load_backbone(path, which, **options)
                weights = f"{backbone} ({which})"
            else:
                folder = ":" in backbone  # local-dir:FOLDER or hf-hub:NAME, which are nothing without their weights
                if not folder and ("/" in backbone or path.suffix in (".ckpt", ".pth", ".pt", ".safetensors")):
                    raise UserError(f"{backbone} does not exist: check the path, or name a timm network")
                download = folder or (pretrained if pretrained is not None else "." in backbone)
                if not folder and _wants_image_size(backbone):
                    options["img_size"] = image_size
                model = create_backbone(backbone, pretrained=download, **options)
                weights = "timm's" if download else f"random (seed {seed})"
        except TypeError as error:
            raise UserError(f"backbone {backbone} does not take {', '.join(options)}: {error}") from error
        if not drop_path:  # that of a pre-training run ends with it
            for module in model.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = 0.0
        if num_classes:
            _add_classifier(model, num_classes, backbone)
    cfg: Any = model.pretrained_cfg
    own = not path.exists() and cfg.get("mean") is not None
    mean, std = (cfg["mean"], cfg["std"]) if own else (IMAGENET_MEAN, IMAGENET_STD)
    return Network(model.train(), cfg["architecture"], weights, tuple(mean), tuple(std))


def _wants_image_size(name: str) -> bool:
    architecture = name.split(".")[0]
    cfg: Any = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    return bool(cfg and cfg.fixed_input_size)


def _add_classifier(model: Any, num_classes: int, backbone: str) -> None:
    model.reset_classifier(num_classes)
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        raise UserError(f"backbone {backbone} has no single linear classifier: take another network")
    trunc_normal_(classifier.weight, std=HEAD_STD)
    if classifier.bias is not None:
        nn.init.zeros_(classifier.bias)
