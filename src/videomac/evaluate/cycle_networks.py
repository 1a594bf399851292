"""Whose features `videomac eval cycle` scores: a backbone, itself with random weights, and its earlier checkpoints."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomac.config import read_config
from videomac.errors import UserError
from videomac.evaluate.config import EvalCycleConfig
from videomac.evaluate.cycle import extractor_of
from videomac.evaluate.cycle_footage import same_footage
from videomac.evaluate.features import RAW_PIXELS, FeatureExtractor
from videomac.evaluate.stride import network_name
from videomac.models import official
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import load_videomac
from videomac.models.resolve import find_weights, resolve
from videomac.utils.reading import read_text, reading

NETWORKS = ("network", "random weights", "raw pixels")
FETCHING = ("pretrained", "checkpoint_path")
"""Arguments of timm that fetch weights."""


def load_networks(config: EvalCycleConfig) -> dict[str, FeatureExtractor]:
    """The backbone, itself with random weights, and raw pixels.

    Raises:
        UserError: the backbone has no weights but random ones, or not this stage or stride.
    """
    if config.backbone == RAW_PIXELS:
        raise UserError("raw pixels have no weights to compare with random ones: name a network in --backbone")
    with torch.random.fork_rng(devices=[]):
        backbone, weights = resolve(
            config.backbone,
            pretrained=config.pretrained,
            network=config.network,
            weights=config.weights,
            seed=config.seed,
        )
        if weights.startswith("random (seed"):
            raise UserError(
                f"{config.backbone} has random weights itself, with which this compares: name a run, a folder or "
                "network with weights"
            )
        random = initialisation_of(config.backbone, backbone, config.seed)
    found: list[Any] = [backbone, random, RAW_PIXELS]
    return {name: extractor_of(one, config.stage, config.stride) for name, one in zip(NETWORKS, found, strict=True)}


def initialisation_of(name: str, backbone: nn.Module, seed: int) -> nn.Module:
    """A network with random weights, of the same architecture and for the same pixels as a backbone.

    Args:
        name: what `resolve` was given for the backbone.
        backbone: what it made of it.
        seed: of the weights; PyTorch's global generator is set to it.

    Raises:
        UserError: as in `load_videomac`.
    """
    path = find_weights(name)
    arguments: dict[str, Any] = {}
    architecture, stage_norms = network_name(backbone), False
    if path is not None and (path / "config.json").is_file():
        with reading(path):
            arguments = json.loads(read_text(path / "config.json")).get("model_args", {})
    elif path is not None:
        model = load_videomac(path)
        architecture, arguments = model.arguments["backbone"], model.arguments["backbone_args"]
        stage_norms = model.preset == "official"
    torch.manual_seed(seed)
    network = create_backbone(architecture, **{k: v for k, v in arguments.items() if k not in FETCHING})
    if stage_norms:
        network = official.add_stage_norms(network)
    if _shapes(network) != _shapes(backbone):
        raise UserError(
            f"{name} is no plain {architecture}, and what timm was told beyond that name is not known here: export it "
            "with `videomac export`, or name the run"
        )
    network.pretrained_cfg = backbone.pretrained_cfg  # whose pixels it expects
    return network


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in network.state_dict().items()}


def digest_of(network: nn.Module) -> str:
    """A short text that tells weights from others."""
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def kept_epochs(run: str) -> dict[int, Path]:
    """The checkpoints that a run has kept, by their epochs.

    Raises:
        UserError: it has kept none.
    """
    found = sorted((Path(run) / "checkpoints").glob("epoch-*.ckpt"))
    if not found:
        raise UserError(
            f"{run} has kept no checkpoint of an epoch, so there is no --curve: name a run's folder, and pre-train "
            "with --keep_epochs"
        )
    return {int(path.stem.removeprefix("epoch-")): path for path in found}


def run_trained_on(backbone: str, data: Path) -> Path | None:
    """The run that a backbone is from, if it was trained on this footage, on more, or on a part of it."""
    path = Path(backbone)
    for folder in (path, *path.parents[:2]):
        with suppress(UserError, KeyError):  # what lies there need not be ours
            if same_footage(Path(read_config(folder, "pretrain")["data"]), data):
                return folder
    return None
