"""Fig. 2: where the reconstruction looks.

The paper shows heat maps and does not say how they were made. Here the question is taken literally: how much does what
is to be seen in a small cell of the frame contribute to what the network paints into the patches that it does not see?
A cell's content is its difference from the mean colour of its patch, and its contribution is how the hidden patches
change, to first order, as that content fades away. No layer, target or interesting patch is chosen. (The bare gradient
would answer another question: where the network would be easiest to disturb, which is where there is nothing to see.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from videomac.data.video import Video
from videomac.figures.common import CELL, Drawn, as_picture, read_pairs, save_figure, show
from videomac.figures.config import FiguresConfig
from videomac.models.autoencoder import MaskedAutoencoder
from videomac.models.masking import num_visible
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.pictures import Reconstruction, reconstruct_frames
from videomac.sparse import upsample_mask
from videomac.utils.frame_gap import FrameGap

CELLS_PER_STRIDE = 4
"""Resolution of the map."""


@dataclass(frozen=True)
class Looked:
    """One frame of Fig. 2."""

    title: str
    pictures: Reconstruction
    heat: npt.NDArray[np.float32]
    """`[rows, columns]`, in units of hidden values."""


def draw(config: FiguresConfig, model: VideoMAC, video: Video) -> Drawn:
    """Write `fig2` and its data, of the pair in the middle of the video: online network first, target second.

    Raises:
        UserError: the video cannot be read.
    """
    gap = FrameGap(config.frame_gap).frames(video.fps)
    start = (len(video) - gap) // 2
    frames = read_pairs(config, model, video, [start], gap)[0]
    grid = (frames.shape[2] // model.patch_size, frames.shape[3] // model.patch_size)
    masks = covering_masks(config.masks, grid, model.mask_ratio, torch.Generator().manual_seed(config.seed))
    past = look("past frame", model.online, frames[0], masks, config.seed, norm_pix_loss=model.norm_pix_loss)
    current = look("current frame", model.target, frames[1], masks, config.seed, norm_pix_loss=model.norm_pix_loss)
    similarity = correlation(torch.from_numpy(past.heat), torch.from_numpy(current.heat))
    save_figure(where_it_looks((past, current), similarity, len(masks)), config.out / "fig2")
    np.savez_compressed(
        config.out / "fig2.npz",
        heat=np.stack([past.heat, current.heat]),
        masks=masks.numpy(),
        frames=np.stack([looked.pictures.frame[0].numpy() for looked in (past, current)]),
        frame_numbers=np.array([start, start + gap]),
    )
    sentence = f"where reconstruction looks (the two frames' maps correlate by {similarity:.2f})"
    return Drawn(sentence, {"fig2": similarity})


def look(
    title: str,
    network: MaskedAutoencoder,
    frame: Float[Tensor, "3 height width"],
    masks: Bool[Tensor, "masks rows columns"],
    seed: int,
    *,
    norm_pix_loss: bool,
) -> Looked:
    """The map of one frame, and its reconstruction under the first mask."""
    cell = max(1, network.encoder.stride // CELLS_PER_STRIDE)
    # The same directions for every frame, so that chance does not tell two of them apart.
    directions = torch.Generator().manual_seed(seed)
    heat = heat_map(contributions(network, frame, masks, cell, generator=directions), masks)
    with torch.no_grad():
        prediction = network(frame[None], masks[:1])
    shown = reconstruct_frames(frame[None], prediction, masks[:1], norm_pix_loss=norm_pix_loss)
    return Looked(title, shown, heat.cpu().numpy())


def covering_masks(
    count: int, grid: tuple[int, int], mask_ratio: float, generator: torch.Generator
) -> Bool[Tensor, "masks rows columns"]:
    """At least `count` random masks which together show every patch about equally often, and at least once.

    Each round deals the shuffled patches out, so many to a mask as are visible.
    """
    patches = grid[0] * grid[1]
    visible = num_visible(patches, mask_ratio)
    masks: list[Tensor] = []
    while len(masks) < count:
        order = torch.randperm(patches, generator=generator)
        for start in range(0, patches, visible):
            shown = order[torch.arange(start, start + visible) % patches]
            masks.append(torch.ones(patches, dtype=torch.bool).index_fill(0, shown, False).view(grid))
    return torch.stack(masks)


def contributions(
    network: MaskedAutoencoder,
    frame: Float[Tensor, "3 height width"],
    masks: Bool[Tensor, "masks rows columns"],
    cell: int,
    *,
    draws: int = 4,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "masks cell_rows cell_columns"]:
    """What each cell contributes to the reconstruction of the hidden patches, squared.

    With the Jacobian J of all hidden values and the cell's content d (0 elsewhere) this is |J d|^2, divided by the
    number of hidden values: their mean squared change as d fades. J is never built: for random v of unit variance the
    mean of (v J d)^2 is |J d|^2.

    Args:
        network: encoder and decoder, in eval mode.
        frame: ImageNet-normalised.
        masks: True = hidden.
        cell: side of a cell in pixels; divides the patch.
        draws: random directions v for each mask.
        generator: of the directions, on the CPU.

    Returns:
        One map a mask; exactly 0 in hidden patches, which are never read.
    """
    patch = frame.shape[1] // masks.shape[1]
    mean = upsample_mask(F.avg_pool2d(frame[None], patch), frame.shape[-2:])
    content = frame[None] - mean
    maps = []
    for mask in masks[:, None]:
        pixels = frame[None].clone().requires_grad_(True)
        prediction = network(pixels, mask)
        hidden = mask.flatten(1).to(prediction.device)[..., None].expand_as(prediction)
        total = torch.zeros_like(F.avg_pool2d(frame[0][None], cell)[0])
        for draw in range(draws):
            direction = torch.randn(prediction.shape, generator=generator).to(prediction) * hidden
            (gradient,) = torch.autograd.grad((prediction * direction).sum(), pixels, retain_graph=draw + 1 < draws)
            total += (F.avg_pool2d((gradient * content).sum(1), cell)[0] * cell**2).square()
        maps.append(total / draws / hidden.sum())
    return torch.stack(maps)


def heat_map(
    contributed: Float[Tensor, "masks cell_rows cell_columns"], masks: Bool[Tensor, "masks rows columns"]
) -> Float[Tensor, "cell_rows cell_columns"]:
    """Average over the masks that show a cell; the root of it, in units of hidden values."""
    seen = upsample_mask((~masks).sum(0), contributed.shape[-2:]).to(contributed)
    return (contributed.sum(0) / seen.clamp(min=1)).sqrt()


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's correlation of two maps."""
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def where_it_looks(frames: Sequence[Looked], similarity: float, masks: int) -> Figure:
    """Fig. 2: for both frames the frame, one mask, its reconstruction, and the map over all masks.

    Each map has its own scale, from 0 to its strongest hundredth: the target network, a slow average, answers more
    weakly than the online network.
    """
    aspect = frames[0].pictures.frame.shape[3] / frames[0].pictures.frame.shape[2]
    figure = Figure(figsize=(4 * CELL * aspect + 1.4, 2 * CELL + 1.0), layout="constrained")
    axes = figure.subplots(2, 4)
    for row, looked in zip(axes, frames, strict=True):
        frame = as_picture(looked.pictures.frame[0])
        height, width = frame.shape[:2]
        grey = np.repeat(frame.mean(2, keepdims=True), 3, axis=2).astype(np.uint8)
        shown = (frame, as_picture(looked.pictures.masked[0]), as_picture(looked.pictures.pasted[0]), grey)
        for axis, picture in zip(row, shown, strict=True):
            show(axis, picture)
        strongest = float(np.quantile(looked.heat, 0.99)) or 1.0
        heat = row[3].imshow(
            looked.heat / strongest, cmap="inferno", vmin=0, vmax=1, alpha=0.72, interpolation="bicubic",
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )  # fmt: skip
        row[0].set_ylabel(looked.title, fontsize=11)
    for axis, title in zip(
        axes[0], ("frame", "what the network sees", "reconstruction", "where it looks"), strict=True
    ):
        axis.set_title(title, fontsize=11)
    bar = figure.colorbar(heat, ax=axes[:, 3], shrink=0.9, pad=0.03)
    bar.set_label("contribution to hidden patches,\nof the frame's strongest", fontsize=9)
    figure.suptitle(
        f"Bright: what is seen there shapes most what is painted into hidden patches (mean of {masks} masks). "
        f"The two maps correlate by {similarity:.2f}.",
        fontsize=10,
    )
    return figure
