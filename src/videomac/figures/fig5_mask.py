"""Fig. 5: the mask in a dense and in our network, after each stage."""

from __future__ import annotations

import numpy as np

from videomac.figures.common import Drawn, save_figure
from videomac.figures.config import FiguresConfig
from videomac.inspection import mask_dissipation
from videomac.models.checkpoint import trained_size
from videomac.models.videomac import VideoMAC


def draw(config: FiguresConfig, model: VideoMAC) -> Drawn:
    """Write `fig5` and its data: the maps, for the architecture of the first run."""
    side, stride = config.image_size or trained_size(config.runs[0]), model.online.encoder.stride
    side = max(1, round(side / stride)) * stride
    figure, data = mask_dissipation.figure(str(model.arguments["backbone"]), (side, side), model.mask_ratio)
    save_figure(figure, config.out / "fig5")
    np.savez_compressed(config.out / "fig5.npz", allow_pickle=False, **data)
    return Drawn("the mask in a dense and in our network, after each stage")
