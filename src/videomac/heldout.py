"""Pairs kept out of training: is the network learning, in numbers and in pictures?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, nn

from videomac.data.transforms import PairTransform
from videomac.data.videos import Video
from videomac.model import VideoMAC, VideoMACOutput
from videomac.visualize import reconstruct_frames, reconstruction_sheet

SHEET_ROWS = 6


@dataclass(frozen=True)
class Excerpt:
    """The frames `start` to `stop` of a video, as a video."""

    video: Video
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The video's name."""
        return self.video.name

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.video.fps

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.stop - self.start

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Read frames by their number within the excerpt."""
        return self.video.read([self.start + index for index in indices])


@dataclass(frozen=True)
class HeldOut:
    """Fixed pairs with fixed masks, centre-cropped, and where they come from."""

    pair: Float[Tensor, "pairs 2 3 height width"]
    mask: Bool[Tensor, "pairs *frame rows columns"]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutResult:
    """What a model makes of the held-out pairs."""

    loss: float
    """Eq. 1 of the online network on the first frames."""
    zero_loss: float
    """The same, had every hidden patch been predicted as its own flat mean; about 1 with normalised pixels."""
    output: VideoMACOutput


def split(videos: Sequence[Video], pairs: int, frame_gap: int) -> tuple[list[Video], list[Excerpt]]:
    """Set aside what `pairs` held-out pairs need.

    With at least ten videos per held-out pair, whole videos are set aside, evenly spread over the sorted list; with
    fewer, the last tenth of evenly spread videos (enough frames for a pair, and only of videos ten times as long).

    Returns:
        the videos to train on, and the held-out excerpts (possibly fewer than `pairs`, possibly none).
    """
    if pairs == 0 or not videos:
        return list(videos), []
    whole = len(videos) >= 10 * pairs
    least = frame_gap + 1 if whole else 10 * (frame_gap + 1)
    candidates = [index for index, video in enumerate(videos) if len(video) >= least]
    count = min(pairs, len(candidates))
    chosen = {candidates[(2 * k + 1) * len(candidates) // (2 * count)] for k in range(count)}
    training: list[Video] = []
    held_out: list[Excerpt] = []
    for index, video in enumerate(videos):
        if index not in chosen:
            training.append(video)
            continue
        length = len(video)
        start = 0 if whole else length - max(frame_gap + 1, length // 10)
        held_out.append(Excerpt(video, start, length))
        if not whole:
            training.append(Excerpt(video, 0, start))
    return training, held_out


def load(
    excerpts: Sequence[Excerpt], pairs: int, frame_gap: int, image_size: tuple[int, int], model: VideoMAC
) -> HeldOut:
    """Read `pairs` pairs, evenly spread over the excerpts and within each, and draw their masks (seed 0)."""
    transform = PairTransform(image_size, augmentation="none")
    generator = torch.Generator().manual_seed(0)
    frames, labels = [], []
    for number, excerpt in enumerate(excerpts):
        share = pairs // len(excerpts) + (number < pairs % len(excerpts))
        for k in range(share):
            first = (2 * k + 1) * (len(excerpt) - frame_gap) // (2 * share)
            frames.append(transform(excerpt.read([first, first + frame_gap]), generator))
            shown = excerpt.start + first
            labels.append(f"{excerpt.name}, frames {shown} and {shown + frame_gap}")
    return HeldOut(torch.stack(frames), model.sample_mask(len(frames), image_size, generator), tuple(labels))


@torch.no_grad()
def evaluate(model: VideoMAC, held_out: HeldOut) -> HeldOutResult:
    """Reconstruct the held-out pairs in eval mode; the model's mode and every random state stay as they were."""
    parameter = next(model.parameters())
    pair, mask = held_out.pair.to(parameter.device, parameter.dtype), held_out.mask.to(parameter.device)
    with evaluating(model):
        output = model(pair, mask)
    goal = model.goal(pair[:, 0])
    hidden = (mask if mask.ndim == 3 else mask[:, 0]).flatten(1)
    flat = (goal - goal.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    return HeldOutResult(output.online_loss.item(), flat[hidden].mean().item(), output)


def sheet(model: VideoMAC, held_out: HeldOut, output: VideoMACOutput, caption: str) -> Image.Image:
    """Draw the reconstruction sheet of the held-out pairs, `SHEET_ROWS` of them at most, evenly spread."""
    count = len(held_out.labels)
    shown = [(2 * k + 1) * count // (2 * min(count, SHEET_ROWS)) for k in range(min(count, SHEET_ROWS))]
    mask_a, mask_b = (output.mask, output.mask) if output.mask.ndim == 3 else output.mask.unbind(1)
    first, second = (
        reconstruct_frames(
            held_out.pair[shown, frame], prediction[shown], mask[shown], norm_pix_loss=model.norm_pix_loss
        )
        for frame, prediction, mask in ((0, output.online_prediction, mask_a), (1, output.target_prediction, mask_b))
    )
    labels = [held_out.labels[index] for index in shown]
    return reconstruction_sheet(first, second, labels, caption=caption, norm_pix_loss=model.norm_pix_loss)


class evaluating:
    """Put a module into eval mode within a `with` block."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __enter__(self) -> None:
        """Remember the mode and leave it."""
        self.before = self.module.training
        self.module.eval()

    def __exit__(self, *_: object) -> None:
        """Restore the mode."""
        self.module.train(self.before)
