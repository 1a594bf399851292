"""What the figures share: a saved figure and its numbers, frames of a video for a network, pictures on axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from videomac.data.transforms import normalize, resize
from videomac.data.video import Video, VideoError
from videomac.errors import UserError
from videomac.figures.config import FiguresConfig
from videomac.models.checkpoint import trained_size
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.pairs import fitting_size

Picture = npt.NDArray[np.uint8]
CELL = 1.9
"""Height of a picture in inches."""


@dataclass(frozen=True)
class Drawn:
    """What became of a figure."""

    sentence: str
    """What it shows, or what is missing to draw it."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """The numbers in it, for `metrics.json`."""


def save_figure(figure: Figure, stem: Path) -> None:
    """Write PNG and SVG; text stays text in the SVG, and equal figures give equal files."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": stem.name}):
        figure.savefig(stem.with_suffix(".png"), dpi=150)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})


def read_pairs(
    config: FiguresConfig, model: VideoMAC, video: Video, starts: Sequence[int], gap: int
) -> Float[Tensor, "pairs 2 3 height width"]:
    """The pairs that begin at these frames and end `gap` frames later, in the size trained with, normalised.

    They lie on the model's device.

    Raises:
        UserError: the video cannot be read.
    """
    try:
        height, width = video.read([0]).shape[-2:]
        short_side = config.image_size or trained_size(config.runs[0])
        size = fitting_size(height, width, short_side, model.patch_size)
        frames = [normalize(resize(video.read([t, t + gap]), size)) for t in starts]
    except VideoError as error:
        raise UserError(f"the video cannot be read: {error}") from error
    return torch.stack(frames).to(next(model.parameters()).device)


def as_picture(frame: UInt8[Tensor, "3 height width"]) -> Picture:
    """A frame as matplotlib takes it: `[height, width, 3]`."""
    return np.asarray(frame.permute(1, 2, 0).numpy(), dtype=np.uint8)


def show(axis: Axes, picture: Any) -> None:
    """Put a picture on an axis, without ticks and frame."""
    axis.imshow(picture, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
