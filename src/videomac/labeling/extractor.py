"""From what a user names as a backbone to features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from videomac.evaluate.features import RAW_PIXELS, FeatureExtractor
from videomac.evaluate.stride import network_name
from videomac.models.resolve import resolve


def load_extractor(
    given: Any, stage: int, stride: int, *, network: Literal["online", "target"], seed: int, device: torch.device
) -> tuple[FeatureExtractor, str, str]:
    """Features of whatever a user may name as a backbone.

    Args:
        given: a name, path or module; features that are loaded already stay as they are.
        stage: of a hierarchical network.
        stride: pixels per cell.
        network: of a pre-training run.
        seed: of random weights.
        device: where features are computed.

    Returns:
        The features, the backbone's name, and where its weights are from.

    Raises:
        UserError: the backbone cannot be had.
    """
    if isinstance(given, FeatureExtractor):
        return given, str(given.description["backbone"]), "as given"
    backbone, name, weights = given, str(given), "none"
    if not isinstance(given, str | Path):
        name, weights = network_name(given), "as given"
    elif name != RAW_PIXELS:
        with torch.random.fork_rng(devices=[]):
            backbone, weights = resolve(given, network=network, seed=seed)
    return FeatureExtractor(backbone, stage=stage, stride=stride, dilate=True).to(device), name, weights
