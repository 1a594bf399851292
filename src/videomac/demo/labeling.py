"""The end of the demo: labels of one frame, carried through a clip by three kinds of features.

One frame's label is handed over, two later ones have been drawn as well, so that what arrives there can be judged.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from videomac.evaluate.images import read_ids
from videomac.evaluate.metrics import jaccard
from videomac.evaluate.overlays import Picture, contact_sheet
from videomac.labeling.command import propagate_video
from videomac.labeling.frames import open_video, read_frames
from videomac.labeling.pictures import draw
from videomac.utils.plots import font
from videomac.utils.video_writer import write_video

CLIP = "bigbuckbunny.mp4"
DRAWN = Path(__file__).parent / "labels"
FIRST, JUDGED = 16, (44, 60)
"""The labelled frame, and those in which the labels are compared with drawn ones."""
SHORT_SIDE = 360
"""Of the frames that the network sees: at 240 the rabbit's head is five cells high."""
TRAINED, RANDOM, RAW = "trained", "random weights", "raw pixels"
WIDTH = 480


def label_clip(run: Path, clip: Path, backbone: str, out: Path, *, seed: int = 0) -> dict[str, float]:
    """Carry the first label through the clip with the run's network, its initialisation and raw pixels.

    Args:
        run: folder of the pre-training.
        clip: Big Buck Bunny.
        backbone: the network that was pre-trained; its random weights of that seed are those it began with.
        out: folder that gets a folder for each of the three, `labels.png` and `labels.mp4`.
        seed: of the pre-training.

    Returns:
        J in percent, mean over both labels and both judged frames, of each of the three.
    """
    found = {}
    for name, features in ((TRAINED, str(run)), (RANDOM, backbone), (RAW, "raw-pixels")):
        folder = out / name.replace(" ", "-")
        with contextlib.redirect_stdout(io.StringIO()):
            propagate_video(
                clip,
                labels=DRAWN / f"{FIRST:05d}.png",
                backbone=features,
                out=folder,
                start=FIRST,
                stop=max(JUDGED) + 1,
                short_side=SHORT_SIDE,
                seed=seed,
                device="cpu",
            )
        found[name] = _score(folder / "masks")
    _draw(clip, out, found)
    return found


def _score(masks: Path) -> float:
    scores = []
    for frame in JUDGED:
        mask, truth = read_ids(masks / f"{frame:05d}.png"), read_ids(DRAWN / f"{frame:05d}.png")
        scores += [float(jaccard(mask == number, truth == number)) for number in np.unique(truth[truth > 0])]
    return 100 * float(np.mean(scores))


def _draw(clip: Path, out: Path, scores: Mapping[str, float]) -> None:
    """Write the picture (drawn labels, and what arrives) and the video (the three side by side)."""
    video = open_video(clip)
    numbers = list(range(FIRST, max(JUDGED) + 1))
    size = read_ids(DRAWN / f"{FIRST:05d}.png").shape
    shown = (FIRST, (FIRST + JUDGED[0]) // 2, *JUDGED)
    columns: dict[int, list[Picture]] = {}

    def side_by_side() -> Iterator[Tensor]:
        for number, frame in read_frames(video, numbers, (size[0], size[1])):
            masks = [out / name.replace(" ", "-") / "masks" / f"{number:05d}.png" for name in scores]
            pictures = [draw(frame, read_ids(mask), {}) for mask in masks]
            if number in shown:
                drawn = DRAWN / f"{number:05d}.png"
                columns[number] = [draw(frame, read_ids(drawn) if drawn.is_file() else None, {}), *pictures]
            captioned = [_captioned(picture, name) for picture, name in zip(pictures, scores, strict=True)]
            yield torch.from_numpy(np.concatenate(captioned, axis=1)).permute(2, 0, 1)

    write_video(out / "labels.mp4", side_by_side(), video.fps)
    captions = [f"frame {number}" + (": labelled" if number == FIRST else "") for number in shown]
    rows = [[columns[number][row] for number in shown] for row in range(1 + len(scores))]
    titles = [f"{name} J {score:.1f}" for name, score in scores.items()]
    contact_sheet("; ".join(["From above: drawn by hand", *titles]), captions, rows).save(out / "labels.png")


def _captioned(picture: Picture, caption: str) -> Picture:
    height = 2 * round(WIDTH * picture.shape[0] / picture.shape[1] / 2)
    image = Image.fromarray(picture).resize((WIDTH, height), Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).text((8, 6), caption, fill="white", font=font(20), stroke_width=2, stroke_fill="black")
    return np.asarray(image)
