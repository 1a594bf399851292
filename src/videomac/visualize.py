"""Pictures of a run: reconstruction sheets, side-by-side clips, loss curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from videomac.data.transforms import denormalize
from videomac.losses import patchify, unpatchify

GREY = 0.5
MARGIN, GAP, LINE = 16, 4, 20  # pixels of a sheet
INK, FAINT, PAPER = (30, 30, 30), (120, 120, 120), (255, 255, 255)
COLUMNS = ("frame", "masked", "reconstruction", "pasted")


@dataclass(frozen=True)
class Reconstruction:
    """What a network made of a batch of frames; every field is uint8 `[batch, 3, height, width]`."""

    frame: UInt8[Tensor, "batch 3 height width"]
    masked: UInt8[Tensor, "batch 3 height width"]
    """The frame with its hidden patches in grey: what the network was shown."""
    reconstruction: UInt8[Tensor, "batch 3 height width"]
    """The prediction of the hidden patches; visible ones, which the loss never looked at, in grey."""
    pasted: UInt8[Tensor, "batch 3 height width"]
    """The prediction in the hidden patches, the frame in the visible ones."""

    def side_by_side(self) -> UInt8[Tensor, "batch 3 height 3*width+8"]:
        """Frame, masked and pasted next to each other, with a white line between them: the frames of a clip."""
        line = self.frame.new_full((*self.frame.shape[:3], GAP), 255)
        return torch.cat([self.frame, line, self.masked, line, self.pasted], dim=3)


def reconstruct_frames(
    frames: Float[Tensor, "batch 3 height width"],
    prediction: Float[Tensor, "batch patches values"],
    mask: Bool[Tensor, "batch rows columns"],
    *,
    norm_pix_loss: bool,
) -> Reconstruction:
    """Turn predicted patches into pictures.

    Args:
        frames: what the network saw before masking, ImageNet-normalised.
        prediction: its output, patch vectors in (row, column, channel) order.
        mask: True = hidden.
        norm_pix_loss: the network predicts pixels normalised by each patch's mean and deviation. These are then taken
            from the frame itself, hidden patches too, so that the picture shows the predicted structure with the true
            brightness and contrast of each patch.
    """
    frames, prediction = frames.detach().float().cpu(), prediction.detach().float().cpu()
    mask = mask.cpu()
    grid = (mask.shape[1], mask.shape[2])
    patch_size = frames.shape[2] // grid[0]
    if norm_pix_loss:
        variance, mean = torch.var_mean(patchify(frames, patch_size), dim=-1, keepdim=True)
        prediction = prediction * (variance + 1e-6).sqrt() + mean
    hidden = mask.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)[:, None]
    frame, predicted = denormalize(frames), denormalize(unpatchify(prediction, grid))
    return Reconstruction(
        frame=_to_uint8(frame),
        masked=_to_uint8(torch.where(hidden, GREY, frame)),
        reconstruction=_to_uint8(torch.where(hidden, predicted, GREY)),
        pasted=_to_uint8(torch.where(hidden, predicted, frame)),
    )


def reconstruction_sheet(
    first: Reconstruction,
    second: Reconstruction,
    labels: Sequence[str],
    *,
    caption: str = "",
    norm_pix_loss: bool = True,
) -> Image.Image:
    """Draw one row per pair: the first frame by the online network, the second by the target network.

    Args:
        first: what the online network made of the first frame of each pair.
        second: what the target network made of the second frame of each pair.
        labels: a line above each row, such as the clip's name and the two frames' numbers.
        caption: a line at the foot of the sheet.
        norm_pix_loss: whether the pictures borrow each patch's mean and deviation from the frame; said at the foot.
    """
    rows, _, height, width = first.frame.shape
    scale = max(1, math.ceil(112 / min(height, width)))  # small frames are enlarged, or the text would not fit
    height, width = height * scale, width * scale
    half = 4 * width + 3 * GAP
    sheet = Image.new("RGB", (2 * half + 3 * MARGIN, rows * (height + LINE + GAP) + 5 * LINE + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    for side, (title, pictures) in enumerate(
        [("first frame, online network", first), ("second frame, target network", second)]
    ):
        left = MARGIN + side * (half + MARGIN)
        draw.text((left, MARGIN), title, INK, _font(15))
        for column, name in enumerate(COLUMNS):
            x = left + column * (width + GAP)
            draw.text((x, MARGIN + LINE), name, FAINT, _font(12))
            for row, picture in enumerate(getattr(pictures, name)):
                y = MARGIN + 3 * LINE + row * (height + LINE + GAP)
                sheet.paste(_to_pil(picture).resize((width, height), Image.Resampling.NEAREST), (x, y))
    for row, label in enumerate(labels):
        draw.text((MARGIN, MARGIN + 2 * LINE + row * (height + LINE + GAP) + 3), label, INK, _font(12))
    note = "The brightness and contrast of each patch are taken from the frame." if norm_pix_loss else ""
    for line, text in enumerate((caption, note)):
        draw.text((MARGIN, sheet.height - MARGIN - (2 - line) * LINE + 4), text, FAINT, _font(12))
    return sheet


def loss_curves(metrics_csv: Path, path: Path) -> None:
    """Draw the four losses, the held-out loss and the learning rate of a run's `metrics.csv` into a PNG."""
    from matplotlib.figure import Figure

    with metrics_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(8, 6), layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    for key, color in (
        ("loss", "black"),
        ("online_loss", "tab:blue"),
        ("target_loss", "tab:orange"),
        ("consistency_loss", "tab:green"),
    ):
        values = [float(row[key]) for row in rows]
        losses.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        losses.plot(steps, smooth(values), color=color, linewidth=1.6, label=key.replace("_", " "))
    held_out = [(int(row["step"]), float(row["held_out_loss"])) for row in rows if row.get("held_out_loss")]
    if held_out:
        losses.plot(*zip(*held_out, strict=True), "D", color="tab:red", markersize=4, label="held-out loss")
    top = sorted(float(row["loss"]) for row in rows)[-max(1, len(rows) // 50)]
    losses.set_ylim(0, top * 1.1 if math.isfinite(top) and top > 0 else None)
    losses.set_ylabel("loss")
    losses.grid(alpha=0.3)
    losses.legend(frameon=False, ncols=3)
    rate.plot(steps, [float(row["learning_rate"]) for row in rows], color="tab:purple")
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", scilimits=(0, 0))
    rate.set_xlabel("optimizer step")
    rate.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a fiftieth of the curve, corrected for its start as in Adam."""
    keep = 1 - 1 / max(1, len(values) / 50)
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed


def _to_uint8(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _to_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
