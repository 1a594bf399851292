"""Pictures of the journey: colours say what came home, and lines where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from videomac.data.synthetic import moving_shapes
from videomac.evaluate.cycle import Return
from videomac.evaluate.cycle_clips import Planted, plant
from videomac.evaluate.cycle_pictures import ASTRAY, HOME, Shown, draw_clips, draw_scores


def pixels(path: Path, colour: str) -> int:
    """How many pixels of a picture have nearly this colour."""
    with Image.open(path) as picture:
        values = np.asarray(picture.convert("RGB")).astype(int)
    return int((abs(values - np.array(to_rgb(colour)) * 255).max(-1) < 12).sum())


def made(planted: Planted, back: torch.Tensor) -> Return:
    origin = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij"))
    return Return(planted.pieces, back, origin, 0.5)


def test_tracks_that_came_home_are_told_from_those_that_did_not(tmp_path: Path) -> None:
    planted = plant(moving_shapes(4, (64, 96))[0], moving_shapes(4, (64, 96), seed=1)[0], seed=0)
    lost = torch.zeros_like(planted.pieces)
    counts = {}
    for name, back in (("home", planted.pieces), ("lost", lost)):
        shown = Shown("a video, frames 0 to 3", planted, {"network": made(planted, back)})
        draw_clips([shown], tmp_path / f"{name}.png")
        counts[name] = pixels(tmp_path / f"{name}.png", HOME), pixels(tmp_path / f"{name}.png", ASTRAY)
    # Of the other colour there is the legend's line alone.
    assert counts["home"][0] > 3 * counts["lost"][0] > 0 and counts["lost"][1] > 3 * counts["home"][1] > 0


def test_there_is_a_row_a_clip_and_two_pictures_a_network(tmp_path: Path) -> None:
    planted = plant(moving_shapes(3, (48, 80))[0], moving_shapes(3, (48, 80), seed=1)[0], seed=0)
    home = made(planted, planted.pieces)
    sizes = []
    for clips, networks in ((1, 1), (3, 1), (1, 2)):
        shown = [Shown(f"{n}, frames 0 to 2", planted, dict.fromkeys("ab"[:networks], home)) for n in range(clips)]
        draw_clips(shown, tmp_path / "tracks.png")
        with Image.open(tmp_path / "tracks.png") as picture:
            sizes.append(picture.size)
    (width, height), (same, higher), (wider, as_high) = sizes
    assert same == width and higher > 2 * height
    assert as_high == height and wider * 3 == width * 5


def test_the_scores_of_one_clip_and_of_many_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 40):
        scores = {name: rng.uniform(size=count).tolist() for name in ("network", "random weights", "raw pixels")}
        draw_scores(scores, (-0.1, 0.1), tmp_path / "scores.png")
        assert (tmp_path / "scores.png").stat().st_size > 10_000
