"""Fig. 8: reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from matplotlib.figure import Figure
from torch import Tensor

from videomac.data.video import Video
from videomac.errors import UserError
from videomac.figures.common import CELL, Drawn, as_picture, read_pairs, save_figure, show
from videomac.figures.config import FiguresConfig
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.pairs import MaskedPairs, reconstruct_pairs
from videomac.reconstruction.pictures import Reconstruction, reconstruct_frames
from videomac.utils.frame_gap import FrameGap
from videomac.utils.spacing import evenly_spaced


def draw(config: FiguresConfig, model: VideoMAC, video: Video) -> Drawn:
    """Write `fig8` and its data, of pairs that are evenly spread over the video.

    Raises:
        UserError: the video cannot be read, or the mask would show nothing.
    """
    gap = FrameGap(config.frame_gap).frames(video.fps)
    starts = evenly_spaced(min(config.pairs, len(video) - gap), len(video) - gap)
    pair = read_pairs(config, model, video, starts, gap)
    ratio = config.mask_ratio or model.mask_ratio
    mask = _mask(len(pair), (pair.shape[3] // model.patch_size, pair.shape[4] // model.patch_size), ratio, config.seed)
    labels = tuple(f"{t} and {t + gap}" for t in starts)
    result = reconstruct_pairs(model, MaskedPairs(pair.cpu(), mask, labels))
    first, second = (
        reconstruct_frames(pair[:, side], prediction, mask, norm_pix_loss=model.norm_pix_loss)
        for side, prediction in enumerate((result.output.online_prediction, result.output.target_prediction))
    )
    caption = f"{ratio:.0%} hidden (trained with {model.mask_ratio:.0%}); loss {result.loss:.3f}, "
    caption += f"flat-patch baseline {result.zero_loss:.3f}"
    if model.norm_pix_loss:
        caption += "\nbrightness and contrast of each patch are taken from the frame"
    save_figure(reconstructions(first, second, labels, caption), config.out / "fig8")
    np.savez_compressed(
        config.out / "fig8.npz",
        allow_pickle=False,
        mask=mask.numpy(),
        frame_numbers=np.array([[t, t + gap] for t in starts]),
        **{
            f"{kind}_{side}": getattr(pictures, kind).numpy()
            for side, pictures in (("a", first), ("b", second))
            for kind in ("frame", "pasted")
        },
    )
    sentence = f"reconstructions (loss {result.loss:.3f}, flat-patch baseline {result.zero_loss:.3f})"
    return Drawn(sentence, {"fig8": result.loss, "fig8_zero": result.zero_loss})


def _mask(count: int, grid: tuple[int, int], ratio: float, seed: int) -> Bool[Tensor, "pairs rows columns"]:
    try:
        return random_mask(count, grid, ratio, torch.Generator().manual_seed(seed))
    except ValueError as error:
        raise UserError(str(error)) from error


def reconstructions(first: Reconstruction, second: Reconstruction, labels: Sequence[str], caption: str) -> Figure:
    """Fig. 8: a row for each pair; of both frames the frame, what was seen, and the reconstruction in its place."""
    count, _, height, width = first.frame.shape
    figure = Figure(figsize=(6 * CELL * width / height * 0.82 + 0.3, count * CELL * 0.82 + 0.9), layout="constrained")
    axes = figure.subplots(count, 6, squeeze=False)
    names = ("frame", "seen", "reconstructed")
    for number, row in enumerate(axes):
        for side, pictures in enumerate((first, second)):
            for offset, picture in enumerate((pictures.frame, pictures.masked, pictures.pasted)):
                show(row[3 * side + offset], as_picture(picture[number]))
        row[0].set_ylabel(labels[number], fontsize=8)
    for column, axis in enumerate(axes[0]):
        whose = ("first frame, online network", "second frame, target network")[column // 3]
        axis.set_title((f"{whose}\n" if column % 3 == 1 else "\n") + names[column % 3], fontsize=10)
    figure.suptitle(caption, fontsize=10)
    return figure
