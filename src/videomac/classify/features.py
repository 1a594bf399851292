"""Pooled features of a frozen network for every image of a data set, computed once and kept in the out folder."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Subset
from tqdm import tqdm

from videomac.classify.config import ProbeConfig
from videomac.classify.images import NO_LABEL, EvalImages, LabelledFolders, eval_loader, eval_transform
from videomac.classify.network import Network
from videomac.errors import UserError
from videomac.utils.device import autocast, pick_device
from videomac.utils.io import atomic_write, read_safetensors

IMAGES_PER_FILE = 20_000
"""An interrupted computation loses at most so many images."""


@dataclass(frozen=True)
class ImageFeatures:
    """Features of a data set's images, without those that cannot be read.

    Attributes:
        values: one row per image, on the CPU.
        labels: index of its class.
        skipped: images that could not be read.
    """

    values: Float[Tensor, "images channels"]
    labels: Int[Tensor, "images"]
    skipped: int


def pooled(model: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels"]:
    """Features of whole images: the mean over positions of `forward_features`, and then the norm that the head has.

    Layers of the head between that norm and the classifier are left out, because pre-training never reached them.
    Networks whose features are no map `[B, C, H, W]`, such as ViTs, are pooled as timm pools them.
    """
    network: Any = model
    features: Tensor = network.forward_features(images)
    if features.ndim == 4 and features.shape[1] == network.num_features:
        features = features.mean((2, 3), keepdim=True)
        norm = getattr(getattr(network, "head", None), "norm", None)
        return (features if norm is None else norm(features)).flatten(1)
    result: Tensor = network.forward_head(features, pre_logits=True)
    return result


def compute_features(config: ProbeConfig, folders: LabelledFolders, network: Network) -> dict[str, ImageFeatures]:
    """Features of the images in train and val; files of an earlier call are used where there are any.

    Raises:
        UserError: the files are of other images, weights or settings, or no image of a part can be read.
    """
    device = pick_device(config.device)
    model = network.model.to(device).eval()
    source = _digest(config, folders, network)
    transform = eval_transform(config.image_size, config.crop_pct, network)
    parts = {}
    for part, samples in (("train", folders.train), ("val", folders.val)):
        dataset = EvalImages(samples, transform, config.image_size)
        files = []
        with _bar(part, len(dataset)) as bar:
            for start in range(0, len(dataset), IMAGES_PER_FILE):
                file = config.out / "features" / f"{part}-{start:08d}.safetensors"
                images = range(start, min(start + IMAGES_PER_FILE, len(dataset)))
                if not file.exists():
                    values, labels = _forward(model, Subset(dataset, images), config, device, bar)
                    with atomic_write(file) as temporary:
                        save_file({"features": values, "labels": labels}, temporary, metadata={"source": source})
                else:
                    _require_source(file, source, config.out)
                    bar.update(len(images))
                files.append(read_safetensors(file))
        values, labels = (torch.cat([file[key] for file in files]) for key in ("features", "labels"))
        read = labels != NO_LABEL
        if not read.any():
            raise UserError(f"no image in {config.data / part} can be read")
        parts[part] = ImageFeatures(values[read], labels[read], int((~read).sum()))
    return parts


def _forward(
    model: nn.Module, dataset: Any, config: ProbeConfig, device: torch.device, bar: Any
) -> tuple[Float[Tensor, "images channels"], Int[Tensor, "images"]]:
    values, labels = [], []
    for batch in eval_loader(dataset, batch_size=config.batch_size, workers=config.workers):
        with torch.inference_mode(), autocast(config.precision, device):
            values.append(pooled(model, batch["image"].to(device)).float().cpu())
        labels.append(batch["label"])
        bar.update(len(batch["label"]))
    return torch.cat(values), torch.cat(labels)


def _bar(part: str, images: int) -> Any:
    title = f"features of {part}"
    return tqdm(total=images, desc=title, unit=" images", disable=not sys.stderr.isatty(), dynamic_ncols=True)


def _digest(config: ProbeConfig, folders: LabelledFolders, network: Network) -> str:
    """What the features depend on, in one word."""
    settings = (config.image_size, config.crop_pct, config.precision, network.name, network.mean, network.std)
    digest = hashlib.sha256(repr((settings, folders.identity)).encode())
    for key, value in network.model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _require_source(file: Path, source: str, out: Path) -> None:
    read_safetensors(file)  # damaged ones are reported
    with safe_open(file, framework="pt") as opened:
        if (opened.metadata() or {}).get("source") != source:
            raise UserError(
                f"the features in {out} are of other images, weights or settings: choose another --out, or --overwrite"
            )
