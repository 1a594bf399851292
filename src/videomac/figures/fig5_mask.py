"""Fig. 5: the mask in a dense and in our network, after each stage."""

from __future__ import annotations

import numpy as np

from videomac.figures.common import Drawn, save_figure
from videomac.figures.config import FiguresConfig
from videomac.inspection import mask_dissipation
from videomac.models.checkpoint import trained_size
from videomac.models.videomac import VideoMAC


def draw(config: FiguresConfig, model: VideoMAC) -> Drawn:
    """Write `fig5` and its data: the maps, for the architecture, stride and patches of the first run."""
    patch, name = model.patch_size, str(model.arguments["backbone"])
    side = max(2, round((config.image_size or trained_size(config.runs[0])) / patch)) * patch  # one patch is no mask
    figure, data = mask_dissipation.figure(
        name, (side, side), model.mask_ratio, patch_size=patch, model_args=model.arguments["backbone_args"]
    )
    save_figure(figure, config.out / "fig5")
    np.savez_compressed(config.out / "fig5.npz", allow_pickle=False, **data)
    return Drawn(f"the mask in a dense and in our network of stride {model.online.encoder.stride}, after each stage")
