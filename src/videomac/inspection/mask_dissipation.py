"""Fig. 5 of the paper: dense convolutions carry information into hidden patches, sparse ones never do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask
from videomac.sparse import Blocks, upsample_mask


def reached(
    name: str, image_size: tuple[int, int], mask: Tensor, model_args: Mapping[str, Any] | None = None
) -> tuple[list[str], list[Float[Tensor, "height width"]], list[Float[Tensor, "height width"]]]:
    """How far the visible patches reach, after each stage of a network.

    Two frames that differ in their visible patches only go through the network; a cell that differs has been reached.

    Args:
        name: the network.
        image_size: (height, width) in pixels.
        mask: `[1, rows, columns]`, True = hidden.
        model_args: timm's arguments beyond the name, such as `output_stride`.

    Returns:
        Names of the stages (the first is the frame itself), and for the dense and for the sparse network one map a
        stage: the change of each cell's features relative to the largest change, in [0, 1]; exactly 0 where nothing
        arrived.
    """
    torch.manual_seed(0)
    network: Any = create_backbone(name, **(model_args or {})).eval()
    encoder = SparseEncoder(copy.deepcopy(network)).eval()
    stages = [str(info["module"]) for info in network.feature_info]
    hidden = upsample_mask(mask, image_size)[:, None]
    generator = torch.Generator().manual_seed(1)
    frames = [torch.randn(1, 3, *image_size, generator=generator).masked_fill(hidden, 0.0) for _ in range(2)]
    dense = [_stage_maps(network, stages, partial(network.forward_features, frame)) for frame in frames]
    sparse = [_stage_maps(encoder.backbone, stages, partial(encoder, frame, mask), encoder) for frame in frames]
    return (
        ["frame", *stages],
        [_change(*pair) for pair in zip([frames[0], *dense[0]], [frames[1], *dense[1]], strict=True)],
        [_change(*pair) for pair in zip([frames[0], *sparse[0]], [frames[1], *sparse[1]], strict=True)],
    )


def draw(name: str, image_size: tuple[int, int], mask_ratio: float, path: Path) -> None:
    """Write the picture of `figure`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(name, image_size, mask_ratio)[0].savefig(path, dpi=150)


def figure(
    name: str,
    image_size: tuple[int, int],
    mask_ratio: float,
    patch_size: int | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> tuple[Figure, dict[str, npt.NDArray[np.float32]]]:
    """Draw the dense network's stages over the sparse one's, the hidden patches outlined.

    The share written above each map is that of hidden cells which something has reached.

    Args:
        name: the network.
        image_size: (height, width) in pixels, multiples of the patch.
        mask_ratio: share of the patches that is hidden.
        patch_size: pixels per patch, a multiple of the network's stride; None: the stride.
        model_args: timm's arguments beyond the name, such as `output_stride`.

    Returns:
        The picture, and its data: the mask, and `dense_STAGE` and `sparse_STAGE` as `reached` gives them.
    """
    stride = SparseEncoder(create_backbone(name, **(model_args or {}))).stride
    patch = patch_size or stride
    grid = (image_size[0] // patch, image_size[1] // patch)
    mask = random_mask(1, grid, mask_ratio, generator=torch.Generator().manual_seed(3))
    stages, dense, sparse = reached(name, image_size, mask, model_args)
    picture = Figure(figsize=(2.3 * len(stages), 5.6))
    axes = picture.subplots(2, len(stages), squeeze=False)
    for row, (kind, maps) in enumerate((("dense", dense), ("sparse (ours)", sparse))):
        for column, (stage, values) in enumerate(zip(stages, maps, strict=True)):
            axis = axes[row, column]
            _show(axis, values, mask[0])
            share = float((values[upsample_mask(mask[0], values.shape)] > 0).float().mean())
            where = stage if column == 0 else f"after {stage}"
            axis.set_title(f"{where}\n{share:.0%} of hidden reached", fontsize=9)
            axis.set_ylabel(kind if column == 0 else "", fontsize=12)
    picture.suptitle(
        f"{name}, stride {stride}: where what the visible patches of {patch} pixels hold has arrived "
        f"({mask_ratio:.0%} hidden, outlined)"
    )
    picture.tight_layout()
    data = {
        f"{kind}_{s}": v.numpy()
        for kind, m in (("dense", dense), ("sparse", sparse))
        for s, v in zip(stages, m, strict=True)
    }
    return picture, {"mask": mask[0].numpy(), **data}


def _show(axis: Axes, values: Tensor, mask: Tensor) -> None:
    height, width = values.shape
    # Light grey = nothing arrived; from there to dark blue on a logarithmic scale over four decades.
    strength = np.clip(1 + np.log10(np.maximum(values.numpy(), 1e-12)) / 4, 0.05, 1) * (values.numpy() > 0)
    axis.imshow(np.ma.masked_equal(strength, 0), cmap="Blues", vmin=-0.25, vmax=1, interpolation="nearest")
    axis.set_facecolor("#e9e9e9")
    axis.set_xticks([])
    axis.set_yticks([])
    cell = height / mask.shape[0]
    for row, column in mask.nonzero().tolist():
        corner = (column * cell - 0.5, row * cell - 0.5)
        axis.add_patch(Rectangle(corner, cell, cell, fill=False, edgecolor="#d1495b", linewidth=0.7))
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)


def _stage_maps(
    network: nn.Module, stages: list[str], run: Callable[[], Tensor], encoder: SparseEncoder | None = None
) -> list[Tensor]:
    """Feature maps `[1, C, h, w]` of the named modules during `run`."""
    maps: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            layout = None if encoder is None else encoder._slot.layout
            if isinstance(layout, Blocks):
                output = layout.unpack(output)
            elif layout is not None:
                output = layout.hide(output)  # what the canvas holds there nobody reads
            maps[stage] = output

        return hook

    handles = [network.get_submodule(stage).register_forward_hook(keep(stage)) for stage in stages]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return [maps[stage] for stage in stages]


def _change(first: Tensor, second: Tensor) -> Tensor:
    change = (first - second).abs().amax(dim=(0, 1))
    return change / change.max()
