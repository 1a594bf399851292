"""`videomac reconstruct`: how a pre-trained network reconstructs the hidden part of a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from videomac.config import save_config
from videomac.data.discovery import VIDEO_SUFFIXES, find_videos
from videomac.data.transforms import normalize, resize
from videomac.data.video import Video, VideoError
from videomac.errors import UserError
from videomac.models.checkpoint import load_videomac, trained_size
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.config import ReconstructConfig
from videomac.reconstruction.pairs import MaskedPairs, fitting_size, reconstruct_pairs
from videomac.reconstruction.pictures import Reconstruction, pairs_sheet, reconstruct_frames
from videomac.utils.device import pick_device
from videomac.utils.frame_gap import FrameGap
from videomac.utils.run_dir import in_words, prepare_out_dir, table, write_metrics, write_rows
from videomac.utils.spacing import evenly_spaced
from videomac.utils.video_writer import write_video

OWNED = ("config.yaml", "metrics.json", "environment.json", "report.html", "metrics.csv", "*.png", "*.mp4")
FRAMES_AT_ONCE = 16


def run(config: ReconstructConfig) -> dict[str, Any]:
    """Write, for every video, a sheet of pairs (PNG) and the whole clip side by side (mp4): frame, masked, pasted.

    Frames keep their shape: the short side is the one trained with, the long side the nearest multiple of the patch.
    One mask holds for the whole clip, so that what moves is the video and not the mask.

    Returns:
        what `metrics.json` holds: the means over the videos.

    Raises:
        UserError: an unusable checkpoint or video, an out folder in use.
    """
    model = load_videomac(config.checkpoint)
    device = pick_device(config.device)
    model.to(device).eval()
    model.mask_ratio = model.mask_ratio if config.mask_ratio is None else config.mask_ratio
    short_side = config.image_size or trained_size(config.checkpoint)
    if short_side < model.patch_size:
        raise UserError(f"image_size {short_side} is smaller than one patch of {model.patch_size} pixels: raise it")
    videos = find_videos(config.video, config.frame_gap)
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    rows = []
    for video, name in zip(videos, _file_names(videos), strict=True):
        try:
            row = _reconstruct_video(video, name, model, short_side, config)
        except VideoError as error:
            print(f"skipped {error}")
            continue
        rows.append(row)
        print(f"{row['video']}: loss {row['loss']:.3f} (flat-patch baseline: {row['zero_loss']:.3f})", flush=True)
    if not rows:
        raise UserError(f"no video in {config.video} could be read")
    write_rows(config.out / "metrics.csv", rows)
    metrics = {key: sum(row[key] for row in rows) / len(rows) for key in ("loss", "zero_loss")}
    metrics |= {"videos": len(rows), "skipped_videos": len(videos) - len(rows)}
    write_metrics(config.out, metrics)
    print(table([(in_words(key), value) for key, value in metrics.items()]))
    print(f"sheets (.png) and clips (.mp4) are in {config.out}")
    return metrics


def _reconstruct_video(
    video: Video, name: str, model: VideoMAC, short_side: int, config: ReconstructConfig
) -> dict[str, Any]:
    height, width = video.read([0]).shape[-2:]
    size = fitting_size(height, width, short_side, model.patch_size)
    grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    generator = torch.Generator().manual_seed(config.seed)
    try:
        clip_mask = random_mask(1, grid, model.mask_ratio, generator)
    except ValueError as error:
        raise UserError(str(error)) from error
    gap = FrameGap(config.frame_gap).frames(video.fps)
    count = min(config.pairs, len(video) - gap)
    firsts = evenly_spaced(count, len(video) - gap)
    pair = torch.stack([normalize(resize(video.read([t, t + gap]), size)) for t in firsts])
    labels = tuple(f"{name}, frames {t} and {t + gap}" for t in firsts)
    held_out = MaskedPairs(pair, model.sample_mask(count, size, generator), labels)
    result = reconstruct_pairs(model, held_out)
    numbers = f"loss {result.loss:.3f} (flat-patch baseline: {result.zero_loss:.3f})"
    pairs_sheet(model, held_out, result.output, numbers).save(config.out / f"{name}.png")

    write_video(config.out / f"{name}.mp4", _clip(video, model, size, clip_mask), video.fps)
    return {"video": video.name, "frames": len(video), "loss": result.loss, "zero_loss": result.zero_loss}


def _file_names(videos: list[Video]) -> list[str]:
    """Return a file name for each video: its name without the suffix, unless two would then be the same."""
    names = [video.name.replace("/", "_") for video in videos]
    short = [Path(name).stem if name.lower().endswith(VIDEO_SUFFIXES) else name for name in names]
    return short if len(set(short)) == len(short) else names


def _clip(video: Video, model: VideoMAC, size: tuple[int, int], mask: Tensor) -> Iterator[UInt8[Tensor, "3 _ _"]]:
    """Yield the frames of the side-by-side clip."""
    for start in range(0, len(video), FRAMES_AT_ONCE):
        frames = video.read(range(start, min(start + FRAMES_AT_ONCE, len(video))))
        yield from reconstruct_masked(model, frames, size, mask).side_by_side()


@torch.no_grad()
def reconstruct_masked(
    model: VideoMAC,
    frames: UInt8[Tensor, "batch 3 _ _"],
    size: tuple[int, int],
    mask: Bool[Tensor, "1 rows columns"],
) -> Reconstruction:
    """What the online network makes of frames that are all masked in the same way.

    Args:
        model: in eval mode.
        frames: as they are in the video.
        size: (height, width) that the network sees, from `fitting_size`.
        mask: True = hidden.
    """
    device = next(model.parameters()).device
    seen = normalize(resize(frames, size)).to(device)
    masks = mask.expand(len(frames), -1, -1).to(device)
    return reconstruct_frames(seen, model.online(seen, masks), masks, norm_pix_loss=model.norm_pix_loss)
