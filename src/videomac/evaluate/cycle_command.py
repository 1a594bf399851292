"""`videomac eval cycle`: what a backbone has learned over its own random weights, on footage without labels."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from videomac.config import read_config, save_config
from videomac.data.discovery import find_videos
from videomac.data.transforms import resize_short_side
from videomac.data.video import Video, VideoError
from videomac.errors import UserError
from videomac.evaluate.config import EvalCycleConfig
from videomac.evaluate.cycle import still, travel
from videomac.evaluate.cycle_clips import Planted, plant
from videomac.evaluate.cycle_pictures import Shown, draw_clips, draw_curve, draw_scores
from videomac.evaluate.features import RAW_PIXELS, FeatureExtractor
from videomac.evaluate.stride import network_name
from videomac.models import official
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import load_backbone, load_videomac
from videomac.models.resolve import find_weights, resolve
from videomac.utils.device import pick_device
from videomac.utils.frame_gap import FrameGap
from videomac.utils.reading import read_text, reading
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, write_metrics, write_rows
from videomac.utils.spacing import evenly_spaced

OWNED = ("config.yaml", "metrics.json", "environment.json", "report.html", "*.csv", "*.png")
NETWORKS = ("network", "random weights", "raw pixels")
STILL = "staying still"
SHOWN_CLIPS = 4
DRAWS = 10_000
FETCHING = ("pretrained", "checkpoint_path")
"""Arguments of timm that fetch weights."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """Some frames of a video.

    Attributes:
        video: it is from.
        numbers: of the frames.
    """

    video: Video
    numbers: list[int]

    @property
    def name(self) -> str:
        """Video, first and last frame."""
        return f"{self.video.name}, frames {self.numbers[0]} to {self.numbers[-1]}"


@holds_out_dir
def run(config: EvalCycleConfig) -> dict[str, Any]:
    """Score a backbone, its random initialisation and raw pixels on the same clips; write numbers and pictures.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: no usable video, a backbone that cannot be had or that is its own random initialisation, an out
            folder in use.
    """
    device = pick_device(config.device)
    kept = kept_epochs(config.backbone) if config.curve else {}
    networks = {name: network.to(device) for name, network in _networks(config).items()}
    clips = choose_clips(config)
    if (folder := run_trained_on(config.backbone, config.data)) is not None:
        logger.warning("%s was trained on these videos, which flatters it: name others in --data", folder)
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    scores: dict[str, dict[str, float]] = {}
    shown: list[Shown] = []
    pictured = {clips[index].name for index in evenly_spaced(min(SHOWN_CLIPS, len(clips)), len(clips))}
    for clip, planted in planted_clips(clips, config.short_side):
        returns = {name: travel(network, planted, config.batch_size) for name, network in networks.items()}
        scores[clip.name] = {**{name: home.score for name, home in returns.items()}, STILL: still(planted)}
        if clip.name in pictured:
            shown.append(Shown(clip.name, planted, {name: returns[name] for name in NETWORKS[:2]}))
    if not scores:
        raise UserError(f"no clip of {config.data} can be read: the warnings above say why")
    metrics = _report(config, scores, shown)
    if kept:
        _report_curve(config, kept, clips, scores)
    write_metrics(config.out, metrics)
    return metrics


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


def planted_clips(clips: Sequence[Clip], short_side: int) -> Iterator[tuple[Clip, Planted]]:
    """Each clip with pieces of the one half the list away; one that cannot be read is left out."""
    for number, clip in enumerate(tqdm(clips, "cycles", unit=" clips", disable=not sys.stderr.isatty())):
        pair = clip, clips[(number + len(clips) // 2) % len(clips)]
        try:
            frames, other = (resize_short_side(one.video.read(one.numbers), short_side) for one in pair)
        except VideoError as error:
            logger.warning("left out %s: %s", clip.name, error)
            continue
        yield clip, plant(frames, other, seed=number)


def choose_clips(config: EvalCycleConfig) -> list[Clip]:
    """Clips spread evenly over the videos and within each.

    Raises:
        UserError: no video, or none that is long enough.
    """
    videos = find_videos(config.data, config.frame_gap)
    gap, frames = FrameGap(config.frame_gap), config.frames
    spans = [gap.frames(video.fps) * (frames - 1) + 1 for video in videos]
    fitting = [(video, span) for video, span in zip(videos, spans, strict=True) if len(video) >= span]
    if not fitting:
        raise UserError(
            f"no video in {config.data} is long enough for {frames} frames {config.frame_gap} apart: the longest has "
            f"{max(map(len, videos))} frames; lower --frames or --frame_gap"
        )
    chosen = [fitting[index] for index in evenly_spaced(min(config.num_clips, len(fitting)), len(fitting))]
    clips = []
    for number, (video, span) in enumerate(chosen):
        share = config.num_clips // len(chosen) + (number < config.num_clips % len(chosen))
        starts = dict.fromkeys(evenly_spaced(share, len(video) - span + 1))  # a short video has fewer
        step = (span - 1) // (frames - 1)
        clips += [Clip(video, list(range(start, start + span, step))) for start in starts]
    if len(clips) < 2:
        raise UserError(f"{config.data} has room for one clip, and pieces of one go into another: add videos")
    return clips


def _networks(config: EvalCycleConfig) -> dict[str, FeatureExtractor]:
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
    return {name: _extractor(one, config) for name, one in zip(NETWORKS, found, strict=True)}


def _extractor(network: Any, config: EvalCycleConfig) -> FeatureExtractor:
    return FeatureExtractor(network, stage=config.stage, stride=config.stride, dilate=True, required=True)


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


def run_trained_on(backbone: str, data: Path) -> Path | None:
    """The run that a backbone is from, if it was trained on this folder."""
    path = Path(backbone)
    for folder in (path, *path.parents[:2]):
        with suppress(UserError, KeyError):  # what lies there need not be ours
            if Path(read_config(folder, "pretrain")["data"]).resolve() == data.resolve():
                return folder
    return None


def _report(config: EvalCycleConfig, scores: dict[str, dict[str, float]], shown: list[Shown]) -> dict[str, Any]:
    """Write and print what came out."""
    columns = {name: [row[name] for row in scores.values()] for name in (*NETWORKS, STILL)}
    lead = np.subtract(columns[NETWORKS[0]], columns[NETWORKS[1]])
    low, high = interval(lead)
    rows = [
        {
            "clip": clip,
            **{name.replace(" ", "_"): score for name, score in row.items()},
            "difference": float(difference),
        }
        for (clip, row), difference in zip(scores.items(), lead, strict=True)
    ]
    write_rows(config.out / "metrics.csv", rows)
    draw_scores(columns, (low, high), config.out / "scores.png")
    draw_clips(shown, config.out / "tracks.png")
    metrics: dict[str, Any] = {name.replace(" ", "_"): float(np.mean(values)) for name, values in columns.items()}
    metrics |= {"difference": float(lead.mean()), "difference_low": low, "difference_high": high, "clips": len(rows)}
    print(
        f"{config.backbone}, stage {config.stage}: score {metrics['network']:.3f}, with random weights "
        f"{metrics['random_weights']:.3f}, raw pixels {metrics['raw_pixels']:.3f}, staying still "
        f"{metrics['staying_still']:.3f}; over its random weights "
        f"{metrics['difference']:+.3f} (95 % of draws: {low:+.3f} to {high:+.3f}) on {len(rows)} clips"
    )
    print(f"scores.png and tracks.png are in {config.out}", flush=True)
    return metrics


def _report_curve(
    config: EvalCycleConfig, kept: dict[int, Path], clips: Sequence[Clip], scores: dict[str, dict[str, float]]
) -> None:
    """Write how the score rose over the epochs that the run kept, from its random weights on."""
    before = np.array([row[NETWORKS[1]] for row in scores.values()])
    rows = [{"epoch": 0, "score": float(before.mean()), "difference": 0.0, "low": 0.0, "high": 0.0}]
    for epoch, path in kept.items():
        network = _extractor(load_backbone(path, config.network), config).to(pick_device(config.device))
        after = [
            travel(network, planted, config.batch_size).score for _, planted in planted_clips(clips, config.short_side)
        ]
        lead = np.array(after) - before
        low, high = interval(lead)
        mean, gain = float(np.mean(after)), float(lead.mean())
        rows.append({"epoch": epoch, "score": mean, "difference": gain, "low": low, "high": high})
        print(f"epoch {epoch}: score {mean:.3f}, {gain:+.3f} ({low:+.3f} to {high:+.3f})", flush=True)
    write_rows(config.out / "curve.csv", rows)
    draw_curve(rows, config.out / "curve.png")


def interval(differences: Any, draws: int = DRAWS) -> tuple[float, float]:
    """95 % of the means of so many draws of as many clips, with replacement (seed 0)."""
    values = np.asarray(differences)
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)
