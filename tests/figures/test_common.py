"""What the figures share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from videomac.figures.common import as_picture, save_figure, show


def draw(value: int) -> Figure:
    figure = Figure(figsize=(2, 1))
    axis = figure.add_axes((0, 0, 0.5, 1))
    picture = torch.zeros(3, 4, 4, dtype=torch.uint8)
    picture[0, :2] = value
    show(axis, as_picture(picture))
    figure.text(0.6, 0.5, f"value {value}")
    return figure


def test_a_saved_figure_is_the_figure(tmp_path: Path) -> None:
    save_figure(draw(200), tmp_path / "a")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (150, 300, 3)
    assert (pixels[10:60, 10:140] == (200, 0, 0)).all() and (pixels[90:140, 10:140] == 0).all(), "red over black"
    assert (pixels[:20, 160:] == 255).all()
    text = (tmp_path / "a.svg").read_text()
    assert ">value 200</text>" in text and "<image" in text


def test_equal_figures_give_equal_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_figure(draw(90), tmp_path / folder / "a")
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / folder / f"a{suffix}").read_bytes() for folder in ("one", "two"))
        assert first == second
