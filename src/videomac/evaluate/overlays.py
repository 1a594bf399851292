"""Pictures of propagated labels: overlay videos and contact sheets (the paper's Fig. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from videomac.evaluate.images import PALETTE, read_frame
from videomac.utils.plots import font

Picture = npt.NDArray[np.uint8]
# Neck to face, neck to belly, shoulders, hips, arms and legs of JHMDB's 15 joints.
BONES = (
    *((0, 2), (0, 1), (0, 3), (0, 4), (1, 5), (1, 6)),
    *((3, 7), (7, 11), (4, 8), (8, 12), (5, 9), (9, 13), (6, 10), (10, 14)),
)
COLOURS = np.minimum(PALETTE.astype(int) * 2, 255).astype(np.uint8)  # the annotations' own are dark
COLUMNS, CELL_WIDTH = 5, 384


def overlay_ids(frame: Picture, ids: Picture, opacity: float = 0.5) -> Picture:
    """Tint a frame with the colour of each object and draw its outline.

    Args:
        frame: RGB `[H, W, 3]`.
        ids: `[H, W]`, 0 = background, left as it is.
        opacity: of the tint.
    """
    mixed = frame * (1 - opacity) + COLOURS[ids] * opacity
    edge = np.zeros(ids.shape, dtype=bool)
    for shift in (-2, -1, 1, 2):
        for axis in (0, 1):
            edge |= np.roll(ids, shift, axis) != ids
    mixed = np.where((ids > 0)[..., None], mixed, frame)
    mixed[edge & (ids > 0)] = COLOURS[ids[edge & (ids > 0)]]
    return mixed.astype(np.uint8)


def overlay_joints(frame: Picture, joints: npt.NDArray[np.float64]) -> Picture:
    """Draw the bones and joints of a person.

    Args:
        frame: RGB `[H, W, 3]`.
        joints: `[15, 2]` pixels; those with negative x are not drawn.
    """
    scale = max(1, round(640 / frame.shape[1]))  # JHMDB's frames are small: draw on larger ones
    image = Image.fromarray(frame).resize((frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    points = [((x + 0.5) * scale, (y + 0.5) * scale) if x >= 0 else None for x, y in joints]
    for number, (start, end) in enumerate(BONES):
        if (a := points[start]) and (b := points[end]):
            draw.line([a, b], fill=tuple(COLOURS[number + 1].tolist()), width=2 * scale)
    for number, point in enumerate(points):
        if point:
            x, y = point
            radius = 2.5 * scale
            colour = tuple(COLOURS[number + 1].tolist())
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour, outline="white")
    return np.asarray(image)


class Pictures:
    """Writes a sequence's overlay video, frame by frame, and its contact sheet at the end."""

    def __init__(self, out: Path, name: str, frames: Sequence[Path], fps: int = 12) -> None:
        """Open the video.

        Args:
            out: folder of the evaluation.
            name: of the sequence; the files are `overlays/<name>.mp4` and `sheets/<name>.png`, / becoming _.
            frames: the pictures, in order.
            fps: frames a second of the video.
        """
        stem = name.replace("/", "_")
        self.name, self.frames = name, frames
        self.sheet, video = out / "sheets" / f"{stem}.png", out / "overlays" / f"{stem}.mp4"
        for path in (self.sheet, video):
            path.parent.mkdir(exist_ok=True)
        self.chosen = np.unique(np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).round().astype(int)).tolist()
        self.kept: list[Picture] = []
        self.count = 0
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self.container = av.open(str(video), "w")
        options = {"crf": "20"} if codec == "libx264" else {}
        self.stream = cast(av.VideoStream, self.container.add_stream(codec, rate=fps, options=options))
        self.stream.pix_fmt = "yuv420p"

    def add(self, overlay: Picture) -> None:
        """The next frame with its labels drawn on it."""
        if self.count in self.chosen:
            self.kept.append(overlay)
        self.count += 1
        height, width = (side - side % 2 for side in overlay.shape[:2])  # halved colour needs even sides
        if self.count == 1:
            self.stream.height, self.stream.width = height, width
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(overlay[:height, :width]), format="rgb24")
        self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Finish the video and write the sheet."""
        self.container.mux(self.stream.encode(None))
        self.container.close()
        rows = [[read_frame(self.frames[index]) for index in self.chosen], self.kept]
        contact_sheet(self.name, [f"frame {index}" for index in self.chosen], rows).save(self.sheet)


def contact_sheet(title: str, captions: Sequence[str], rows: Sequence[Sequence[Picture]]) -> Image.Image:
    """Pictures in rows and columns, with a title and a caption over each column."""
    height = round(CELL_WIDTH * rows[0][0].shape[0] / rows[0][0].shape[1])
    gap, line = 6, 30
    size = (len(captions) * (CELL_WIDTH + gap) + gap, 2 * line + len(rows) * (height + gap) + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 4), title, fill="black", font=font(20))
    for column, caption in enumerate(captions):
        left = gap + column * (CELL_WIDTH + gap)
        draw.text((left, line + 4), caption, fill="black", font=font(17))
        for row, pictures in enumerate(rows):
            cell = Image.fromarray(pictures[column]).resize((CELL_WIDTH, height), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left, 2 * line + row * (height + gap)))
    return sheet
