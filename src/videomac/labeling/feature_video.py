"""`videomac features`: what backbones see in a video, as colours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from videomac.config import save_config
from videomac.data.transforms import resize
from videomac.data.video import VideoError
from videomac.errors import UserError
from videomac.evaluate.features import FeatureExtractor
from videomac.labeling.channels import Geometry
from videomac.labeling.config import FeaturesConfig
from videomac.labeling.extractor import load_extractor
from videomac.labeling.frames import chosen_frames, frame_size, open_video, read_frames
from videomac.utils.device import pick_device
from videomac.utils.plots import font
from videomac.utils.run_dir import prepare_out_dir, write_metrics
from videomac.utils.spacing import evenly_spaced
from videomac.utils.video_writer import write_video

OWNED = ("config.yaml", "metrics.json", "environment.json", "features.mp4", "sheet.png")
FITTED_FRAMES, SHEET_ROWS, GAP, LINE = 32, 4, 4, 24
TINT = (255.0, 140.0, 0.0)
SPREAD = 2.5
"""Standard deviations of a component that fill the range of a colour."""


@dataclass(frozen=True)
class Colours:
    """Three principal components of a clip's features, which become red, green and blue.

    They are fitted once over frames of the whole clip, so that a colour means the same in every frame.

    Attributes:
        mean: `[C]`.
        components: `[3, C]`, the first explains most; scaled such that a standard deviation is 1.
        explained: share of the variance that the three explain.
    """

    mean: Float[Tensor, " channels"]
    components: Float[Tensor, "3 channels"]
    explained: float

    @classmethod
    def fit(cls, features: Float[Tensor, "cells channels"]) -> Colours:
        """The components with the most variance; of each, the entry with the largest weight is positive."""
        mean = features.double().mean(0)
        centred = features.double() - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
        count = min(3, len(values))
        components, variance = vectors.T.flip(0)[:count], values.flip(0)[:count].clamp(min=1e-12)
        largest = components.abs().argmax(1, keepdim=True)
        components = components * components.gather(1, largest).sign()
        share = float(variance.sum() / values.clamp(min=0).sum().clamp(min=1e-12))
        components = F.pad(components / variance.sqrt()[:, None], (0, 0, 0, 3 - count))
        return cls(mean.float(), components.float(), share)

    def __call__(
        self, features: Float[Tensor, "channels rows columns"], size: tuple[int, int]
    ) -> UInt8[Tensor, "3 height width"]:
        """A feature map as a picture."""
        scores = torch.einsum("kc,chw->khw", self.components, features - self.mean[:, None, None])
        picture = (scores / (2 * SPREAD) + 0.5).clamp(0, 1) * 255
        return F.interpolate(picture.round().to(torch.uint8)[None], size, mode="nearest")[0]


def run(config: FeaturesConfig) -> dict[str, Any]:
    """Write `features.mp4` and `sheet.png`: the video, and beside it each backbone's features as colours.

    Returns:
        What `metrics.json` holds: for each backbone, the share of the variance that the colours show.

    Raises:
        UserError: the video or a backbone cannot be had, or the out folder is in use.
    """
    assert config.backbone is not None
    video, device = open_video(config.video), pick_device(config.device)
    numbers = chosen_frames(len(video), config.start, config.stop, config.every)
    size = frame_size(video, numbers[0])
    extractors, titles = [], []
    for name in config.backbone:
        extractor, _, weights = load_extractor(
            name, config.stage, config.stride, network=config.network, seed=config.seed, device=device
        )
        extractors.append(extractor)
        titles.append(f"{Path(name).name}, {'random' if weights.startswith('random') else 'trained'}")
    titles = [title if name != "raw-pixels" else name for title, name in zip(titles, config.backbone, strict=True)]
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    geometries = [Geometry.fitted(size, config.short_side, extractor.stride) for extractor in extractors]
    shown = tuple(2 * round(side * config.short_side / min(size) / 2) for side in size)

    def features_of(frames: list[int]) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        for number, frame in read_frames(video, frames, size):
            with torch.inference_mode():
                maps = [frame_features(*pair, frame, device) for pair in zip(extractors, geometries, strict=True)]
            yield number, frame, maps

    sample = [numbers[index] for index in evenly_spaced(min(FITTED_FRAMES, len(numbers)), len(numbers))]
    sheet: list[Tensor] = []
    rows = {numbers[index] for index in evenly_spaced(min(SHEET_ROWS, len(numbers)), len(numbers))}
    try:
        cells = [maps for _, _, maps in features_of(sample)]
        colours = [Colours.fit(torch.cat([m[k].flatten(1).T for m in cells])) for k in range(len(extractors))]
        heading = _heading(["video", *titles], (shown[0], shown[1]))

        def pictures() -> Iterator[Tensor]:
            bar = tqdm(features_of(numbers), "features", len(numbers), unit=" frames", disable=not sys.stderr.isatty())
            for number, frame, maps in bar:
                plain = resize(frame[None], (shown[0], shown[1]))[0]
                drawn = [colour(map_, (shown[0], shown[1])) for colour, map_ in zip(colours, maps, strict=True)]
                row = _beside([plain, *drawn])
                if number in rows:
                    sheet.append(row)
                yield torch.cat([heading, row], dim=1)

        write_video(config.out / "features.mp4", pictures(), max(1.0, video.fps / config.every))
    except VideoError as error:
        raise UserError(f"{error}: --stop before that frame, or convert the video") from error
    Image.fromarray(torch.cat([heading, *sheet], dim=1).permute(1, 2, 0).numpy()).save(config.out / "sheet.png")
    explained = dict(zip(titles, [round(colour.explained, 4) for colour in colours], strict=True))
    metrics = {"frames": len(numbers), "explained_variance": explained}
    write_metrics(config.out, metrics)
    for title, share in explained.items():
        print(f"{title}: three components hold {100 * share:.0f} % of the variance")
    print(f"features.mp4 and sheet.png are in {config.out}")
    return metrics


def frame_features(
    extractor: FeatureExtractor, geometry: Geometry, frame: UInt8[Tensor, "3 height width"], device: torch.device
) -> Float[Tensor, "channels rows columns"]:
    """Features of unit length, as they are compared in propagation."""
    picture = resize(frame[None], geometry.size).to(device).float() / 255
    return F.normalize(extractor(picture)[0].float(), dim=0).cpu()


def draw_similarity(
    frame: UInt8[Tensor, "3 height width"],
    features: Float[Tensor, "channels rows columns"],
    query: Float[Tensor, " channels"],
) -> UInt8[Tensor, "3 height width"]:
    """A frame in grey, tinted where its features are like one cell's.

    The tint begins at the frame's middle cosine similarity and is full at 1: most cells of a frame are rather similar.

    Args:
        frame: at the size of the picture.
        features: of the frame, of unit length.
        query: of the cell, of unit length.
    """
    cosine = torch.einsum("chw,c->hw", features, query)
    tint = (cosine - cosine.median()) / (1 - cosine.median()).clamp(min=1e-6)
    tint = F.interpolate(tint.clamp(0, 1)[None, None], frame.shape[-2:], mode="bilinear", align_corners=False)[0]
    grey = frame.float().mean(0, keepdim=True).expand(3, -1, -1) * 0.8
    return torch.lerp(grey, torch.tensor(TINT).view(3, 1, 1).expand_as(grey), 0.9 * tint).round().to(torch.uint8)


def _beside(pictures: list[Tensor]) -> Tensor:
    line = torch.full((3, pictures[0].shape[1], GAP), 255, dtype=torch.uint8)
    parts = [part for picture in pictures for part in (picture, line)][:-1]
    return torch.cat(parts, dim=2)


def _heading(titles: list[str], size: tuple[int, int]) -> Tensor:
    """A line of text over the pictures."""
    image = Image.new("RGB", (len(titles) * (size[1] + GAP) - GAP, LINE), "white")
    draw = ImageDraw.Draw(image)
    for number, title in enumerate(titles):
        draw.text((number * (size[1] + GAP) + 4, 4), title, fill="black", font=font(14))
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
