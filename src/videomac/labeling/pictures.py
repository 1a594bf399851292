"""The labelled video and its contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from videomac.data.transforms import resize
from videomac.data.video import Video, VideoError
from videomac.evaluate.images import Ids, read_ids
from videomac.evaluate.labels import resize_ids
from videomac.evaluate.overlays import COLOURS, Picture, contact_sheet, overlay_ids
from videomac.labeling.frames import read_frames
from videomac.utils.spacing import evenly_spaced
from videomac.utils.video_writer import write_video

LARGEST_SIDE, SHEET_COLUMNS = 480, 5


def draw(frame: UInt8[Tensor, "3 height width"], ids: Ids | None, points: Mapping[str, Sequence[float]]) -> Picture:
    """A frame with its labels, reduced to a short side of 480 pixels.

    Args:
        frame: of the video.
        ids: object ids `[H, W]`, or None.
        points: (x, y, visible, ...) by name, in pixels of the video; those that are not visible are left out.
    """
    scale = min(1.0, LARGEST_SIDE / min(frame.shape[-2:]))
    size = tuple(2 * max(1, round(side * scale / 2)) for side in frame.shape[-2:])
    picture: Picture = np.ascontiguousarray(resize(frame[None], (size[0], size[1]))[0].permute(1, 2, 0).numpy())
    if ids is not None:
        picture = overlay_ids(picture, resize_ids(torch.from_numpy(ids), (size[0], size[1])).numpy())
    if points:
        image = Image.fromarray(picture)
        canvas, radius = ImageDraw.Draw(image), max(2.0, min(size) / 120)
        for number, (x, y, visible, *_) in enumerate(points.values()):
            if visible:
                u = (x + 0.5) * size[1] / frame.shape[-1]
                v = (y + 0.5) * size[0] / frame.shape[-2]
                colour = tuple(COLOURS[number % 254 + 1].tolist())
                canvas.ellipse([u - radius, v - radius, u + radius, v + radius], fill=colour, outline="white")
        picture = np.asarray(image)
    return picture


def write_pictures(
    out: Path, video: Video, size: tuple[int, int], rows: Mapping[int, Any], every: int, tick: Callable[[], object]
) -> None:
    """Write `overlay.mp4` and `sheet.png` of the frames that are labelled.

    Args:
        out: folder with the masks.
        video: the video.
        size: (height, width) of its frames.
        rows: what is known of each frame, by its number.
        every: distance of the frames, which the rate of the video is divided by.
        tick: called for every frame.
    """
    frames = sorted(rows)
    chosen = {frames[index] for index in evenly_spaced(min(SHEET_COLUMNS, len(frames)), len(frames))}
    sheet: list[tuple[str, Picture, Picture]] = []

    def pictures() -> Iterator[Tensor]:
        for number, frame in read_frames(video, frames, size):
            mask = out / "masks" / f"{number:05d}.png"
            picture = draw(frame, read_ids(mask) if mask.is_file() else None, rows[number]["points"])
            if number in chosen:
                sheet.append((f"frame {number}", draw(frame, None, {}), picture))
            tick()
            yield torch.from_numpy(picture.copy()).permute(2, 0, 1)

    try:
        write_video(out / "overlay.mp4", pictures(), max(1.0, video.fps / every))
    except VideoError as error:
        print(f"overlay.mp4 ends early: {error}")
    captions, plain, drawn = zip(*sheet, strict=True)
    contact_sheet(video.name, captions, [plain, drawn]).save(out / "sheet.png")
