"""The backbones that the page offers, and those that are loaded."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import timm
import torch

from videomac.errors import UserError
from videomac.evaluate.features import RAW_PIXELS, FeatureExtractor
from videomac.labeling.extractor import load_extractor
from videomac.models.checkpoint import load_videomac, trained_size
from videomac.models.videomac import VideoMAC

UNTRAINED, SUPERVISED = "resnet18", "tf_efficientnet_lite0.in1k"
STRIDE, LOADED = 8, 4
"""Pixels per cell; backbones that stay in memory."""


class Backbones:
    """Whatever `propagate` takes, by its name.

    Folders and files are only those that were named at the start: from a browser nothing but names of timm's networks
    is taken.

    Attributes:
        device: where features are computed.
        named: at the start.
    """

    def __init__(self, named: Sequence[str], device: torch.device) -> None:
        self.device, self.named = device, list(named)
        self._lock = threading.Lock()  # two people who choose the same backbone load it once
        self._load = lru_cache(LOADED)(self._load_extractor)
        self._load_model = lru_cache(2)(self._load_videomac)

    @property
    def choices(self) -> list[tuple[str, str]]:
        """What is offered, as (words, name), the default first."""
        defaults = [] if self.named else [(f"{UNTRAINED}, random weights", UNTRAINED)]
        known = [
            (f"{name}, random weights" if self._is_untrained(name) else self.short(name), name) for name in self.named
        ]
        others = [(RAW_PIXELS, RAW_PIXELS), (f"{SUPERVISED} (downloads 20 MB)", SUPERVISED)]
        return [*known, *defaults, *(choice for choice in others if choice[1] not in self.named)]

    def short(self, name: str) -> str:
        """What to call a backbone in the page: of a path its last part, unless several end like that."""
        last = Path(name).name if Path(name).exists() else name
        return last if [Path(other).name for other in self.named].count(last) <= 1 else name

    @staticmethod
    def _is_untrained(name: str) -> bool:
        return timm.is_model(name) and not Path(name).exists()

    @staticmethod
    def stage_for(name: str) -> int:
        """The stage that suits a backbone: 2 for pre-trained runs, 3 for timm's networks (docs/label.md says why)."""
        return 3 if timm.is_model(name.split(".")[0]) and not Path(name).exists() else 2

    def extractor(self, name: str, stage: int) -> FeatureExtractor:
        """Features of a backbone.

        Raises:
            UserError: it was not named at the start and is none of timm's, or cannot be loaded.
        """
        name = name.strip()
        offered = [choice for _, choice in self.choices]
        if name not in offered and not (timm.is_model(name.split(".")[0]) and not Path(name).exists()):
            raise UserError(
                f"{name!r} is none of timm's networks: folders and files are named at the start, with --backbone"
            )
        with self._lock:
            return self._load(name, stage)

    def _load_extractor(self, name: str, stage: int) -> FeatureExtractor:
        return load_extractor(name, stage, STRIDE, network="online", seed=0, device=self.device)[0]

    def model(self, name: str) -> tuple[VideoMAC, int]:
        """The whole model of a pre-training run, and the short side that it was trained with.

        Raises:
            UserError: this backbone has no decoder.
        """
        name = name.strip()
        if name not in self.named or not Path(name).exists():
            raise UserError(
                f"{name} has no decoder, which draws the reconstruction: start the app with --backbone and the folder "
                "of a run of videomac pretrain"
            )
        with self._lock:
            return self._load_model(name)

    def _load_videomac(self, name: str) -> tuple[VideoMAC, int]:
        try:
            model = load_videomac(name)
        except UserError as error:
            raise UserError(f"{name} has no decoder, which draws the reconstruction ({error})") from None
        return model.to(self.device).eval(), trained_size(Path(name))
