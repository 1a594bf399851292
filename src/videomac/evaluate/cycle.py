"""A score without labels: pieces that were planted in a clip are followed to its last frame and back.

The first frame says where the pieces are. Label propagation carries that through the clip, as it carries the masks of a
benchmark, and then from what has arrived in the last frame back to the first. The truth is known in every frame, so the
score is the mean intersection over union of the pieces, over all frames of both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from videomac.evaluate.cycle_clips import PIECES, Planted
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.labels import grid_to_ids, masks_to_grid, one_hot, resize_frames
from videomac.evaluate.propagation import propagate_stream
from videomac.evaluate.protocols import PropagationSettings, Stride

DRAWS = 10_000
Verdict = Literal["better", "worse", "undecided"]


@dataclass(frozen=True)
class Return:
    """What became of the pieces of a clip.

    Attributes:
        there: number of the piece at each pixel, on the way to the last frame, the first frame being the truth.
        back: the same on the way back, ordered as the clip is.
        origin: for each cell of the first frame, as it was reached on the way back, where it was in the last frame: row
            and column in cells.
        score: in [0, 1].
    """

    there: UInt8[Tensor, "frames height width"]
    back: UInt8[Tensor, "frames height width"]
    origin: Float[Tensor, "2 rows columns"]
    score: float


def extractor_of(network: Any, stage: int, stride: Stride, *, required: bool = True) -> FeatureExtractor:
    """The features of a network that are scored.

    Args:
        network: any that `FeatureExtractor` takes.
        stage: of a hierarchical network.
        stride: pixels per cell.
        required: refuse a stride that the network cannot have; otherwise its own is taken.

    Raises:
        UserError: the network has not this stage or stride.
    """
    return FeatureExtractor(network, stage=stage, stride=stride, dilate=True, required=required)


def travel(extractor: FeatureExtractor, clip: Planted, batch_size: int = 8) -> Return:
    """Follow the pieces there and back by a backbone's features.

    Args:
        extractor: the features.
        clip: of two frames or more.
        batch_size: frames that go through the backbone at once.
    """
    features = list(_features(extractor, clip.frames, batch_size))
    size, grid = (clip.pieces.shape[1], clip.pieces.shape[2]), (features[0].shape[1], features[0].shape[2])
    settings = PropagationSettings(context_frames=7, topk=5, radius=max(1, min(grid) // 5), temperature=0.1)
    labels = masks_to_grid(clip.pieces[0], PIECES + 1, size, grid, "area")
    there = list(propagate_stream(features, labels, settings))
    places = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in grid), indexing="ij"))
    arrived = one_hot(there[-1].argmax(0).cpu(), PIECES + 1)
    back = list(propagate_stream(features[::-1], torch.cat([arrived, places]), settings))[::-1]
    went = torch.stack([clip.pieces[0], *(_at_pixels(maps, size) for maps in there[1:])])
    came = torch.stack([_at_pixels(maps[:-2], size) for maps in back])
    return Return(went, came, back[0][-2:].cpu(), score(went, came, clip))


def score(
    there: UInt8[Tensor, "frames height width"], back: UInt8[Tensor, "frames height width"], clip: Planted
) -> float:
    """Mean `overlap` with the truth over the frames of both ways, each without the frame that it begins with."""
    followed = [*zip(there[1:], clip.pieces[1:], strict=True), *zip(back[:-1], clip.pieces[:-1], strict=True)]
    return sum(overlap(found, truth) for found, truth in followed) / len(followed)


def still(clip: Planted) -> float:
    """The score of pieces that are left where they are in the first frame."""
    unmoved = clip.pieces[:1].expand_as(clip.pieces)
    return score(unmoved, unmoved, clip)


def overlap(found: UInt8[Tensor, "height width"], truth: UInt8[Tensor, "height width"]) -> float:
    """Mean intersection over union of the pieces; one that is neither there nor found counts as 1."""
    pairs = [(found == piece, truth == piece) for piece in range(1, PIECES + 1)]
    return sum(float((a & b).sum()) / max(float((a | b).sum()), 1) if (a | b).any() else 1.0 for a, b in pairs) / PIECES


def lead(scores: Sequence[float], before: Sequence[float]) -> dict[str, float]:
    """How far a network is ahead of another one on the same clips.

    Args:
        scores: of each clip.
        before: the other one's, such as those of random weights.

    Returns:
        "score", the mean; "difference" to the other mean; "low" and "high", its 95 % `interval`.
    """
    differences = np.subtract(scores, before)
    low, high = interval(differences)
    return {"score": float(np.mean(scores)), "difference": float(differences.mean()), "low": low, "high": high}


def interval(differences: Any, draws: int = DRAWS) -> tuple[float, float]:
    """95 % of the means of so many draws of as many clips, with replacement (seed 0)."""
    values = np.asarray(differences)
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


def verdict(low: float, high: float) -> Verdict:
    """What the `interval` of the differences to a network's own random weights says of its training.

    Of 60 verdicts on short runs, some of them made to fail, none was the reverse of what J&F says (docs/cycle.md).
    """
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def in_words(row: Mapping[str, float]) -> str:
    """A `lead` after an "epoch", for the terminal."""
    return (
        f"epoch {row['epoch']}: score {row['score']:.3f}, over random weights {row['difference']:+.3f} "
        f"({row['low']:+.3f} to {row['high']:+.3f})"
    )


def _features(
    extractor: FeatureExtractor, frames: UInt8[Tensor, "frames 3 height width"], batch_size: int
) -> Iterator[Float[Tensor, "channels rows columns"]]:
    """Features of each frame."""
    for first in range(0, len(frames), batch_size):
        batch = frames[first : first + batch_size].to(extractor.mean.device)
        with torch.inference_mode():
            maps = extractor(resize_frames(batch, (batch.shape[-2], batch.shape[-1])))
        yield from maps.unbind()


def _at_pixels(maps: Float[Tensor, "labels rows columns"], size: tuple[int, int]) -> UInt8[Tensor, "height width"]:
    """The label of each pixel."""
    return grid_to_ids(maps, size, size, class_normalization=False).to(torch.uint8).cpu()
