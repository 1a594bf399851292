"""The first picture of README: a labelled frame, and what `videomac propagate` gives to the rest of the clip.

    make demo && python benchmarks/label_picture.py --run runs/demo --out docs/assets/label.webp

The rabbit is labelled as in the demo, here in one piece; the boulders, as grey as it is, are the second label.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import videomac
from videomac.demo.labeling import CLIP, DRAWN, FIRST
from videomac.evaluate.images import read_ids, write_ids
from videomac.labeling.frames import open_video, read_frames
from videomac.labeling.pictures import draw
from videomac.utils.plots import font

BOULDERS = (
    *((146, 246), (165, 244), (200, 258), (240, 300), (245, 340), (246, 365), (240, 390), (233, 412), (237, 425)),
    *((243, 446), (240, 466), (223, 466), (229, 480), (231, 500), (226, 515), (213, 528), (190, 534), (160, 530)),
    *((130, 516), (100, 506), (85, 498), (73, 480), (66, 455), (66, 435), (72, 415), (78, 400), (86, 392)),
    *((102, 385), (120, 382), (122, 340), (124, 310), (130, 280), (140, 255)),
)
"""Outline in frame 16 of Big Buck Bunny, in pixels."""
STOP, EVERY, HEIGHT = 124, 2, 216


def first_label(path: Path) -> None:
    rabbit = read_ids(DRAWN / f"{FIRST:05d}.png") > 0
    outline = Image.new("L", (rabbit.shape[1], rabbit.shape[0]))
    ImageDraw.Draw(outline).polygon(BOULDERS, fill=2)
    write_ids(path, np.where(rabbit, 1, np.asarray(outline)).astype(np.uint8))


def reduced(frame: torch.Tensor, mask: Path, caption: str) -> Image.Image:
    picture = Image.fromarray(draw(frame, read_ids(mask), {}))
    picture = picture.resize((HEIGHT * picture.width // picture.height, HEIGHT), Image.Resampling.LANCZOS)
    ImageDraw.Draw(picture).text((7, 5), caption, fill="white", font=font(15), stroke_width=2, stroke_fill="black")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clip = arguments.run / "clips" / CLIP
    with tempfile.TemporaryDirectory() as folder:
        label, out = Path(folder, "label.png"), Path(folder, "out")
        first_label(label)
        videomac.propagate_video(clip, labels=label, backbone=arguments.run, out=out, start=FIRST, stop=STOP)
        numbers = list(range(FIRST, STOP, EVERY))
        pictures = []
        for number, frame in read_frames(open_video(clip), numbers, read_ids(label).shape):
            right = reduced(frame, out / "masks" / f"{number:05d}.png", f"propagated: frame {number}")
            if number == FIRST:
                left = reduced(frame, label, f"labelled: frame {number}")
            both = Image.new("RGB", (left.width + right.width + 6, HEIGHT), "white")
            both.paste(left, (0, 0))
            both.paste(right, (left.width + 6, 0))
            pictures.append(both)
    durations = [1000 // 12] * (len(pictures) - 1) + [1500]
    pictures[0].save(
        arguments.out, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=70, method=6
    )
    print(f"{arguments.out}: {len(pictures)} frames, {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
