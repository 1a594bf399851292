"""Pictures of reconstructions: sheets and side-by-side clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from videomac.data.transforms import denormalize
from videomac.models.losses import patchify, unpatchify
from videomac.models.videomac import VideoMAC, VideoMACOutput
from videomac.reconstruction.pairs import MaskedPairs
from videomac.sparse import upsample_mask
from videomac.utils.plots import FAINT, INK, PAPER, font
from videomac.utils.spacing import evenly_spaced

GREY = 0.5
MARGIN, GAP, LINE = 16, 4, 20  # pixels of a sheet
COLUMNS = ("frame", "masked", "reconstruction", "pasted")


@dataclass(frozen=True)
class Reconstruction:
    """A network's reconstruction of a batch of frames; every field is uint8 `[batch, 3, height, width]`."""

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
        norm_pix_loss: the network predicts pixels normalised by each patch's mean and standard deviation. These are
            then taken
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
    hidden = upsample_mask(mask, frames.shape[-2:])[:, None]
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
        norm_pix_loss: whether the pictures take each patch's mean and standard deviation from the frame; said at the
            foot.
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
        draw.text((left, MARGIN), title, INK, font(15))
        for column, name in enumerate(COLUMNS):
            x = left + column * (width + GAP)
            draw.text((x, MARGIN + LINE), name, FAINT, font(12))
            for row, picture in enumerate(getattr(pictures, name)):
                y = MARGIN + 3 * LINE + row * (height + LINE + GAP)
                sheet.paste(_to_pil(picture).resize((width, height), Image.Resampling.NEAREST), (x, y))
    for row, label in enumerate(labels):
        draw.text((MARGIN, MARGIN + 2 * LINE + row * (height + LINE + GAP) + 3), label, INK, font(12))
    note = "The brightness and contrast of each patch are taken from the frame." if norm_pix_loss else ""
    for line, text in enumerate((caption, note)):
        draw.text((MARGIN, sheet.height - MARGIN - (2 - line) * LINE + 4), text, FAINT, font(12))
    return sheet


def _to_uint8(picture: Tensor) -> Tensor:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8)


def _to_pil(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


SHEET_ROWS = 6


def pairs_sheet(model: VideoMAC, pairs: MaskedPairs, output: VideoMACOutput, caption: str) -> Image.Image:
    """Draw the reconstruction sheet of the held-out pairs, `SHEET_ROWS` of them at most, evenly spread."""
    count = len(pairs.labels)
    shown = evenly_spaced(min(count, SHEET_ROWS), count)
    mask_a, mask_b = (output.mask, output.mask) if output.mask.ndim == 3 else output.mask.unbind(1)
    first, second = (
        reconstruct_frames(pairs.pair[shown, frame], prediction[shown], mask[shown], norm_pix_loss=model.norm_pix_loss)
        for frame, prediction, mask in ((0, output.online_prediction, mask_a), (1, output.target_prediction, mask_b))
    )
    labels = [pairs.labels[index] for index in shown]
    return reconstruction_sheet(first, second, labels, caption=caption, norm_pix_loss=model.norm_pix_loss)
