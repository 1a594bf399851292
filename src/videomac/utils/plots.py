"""What several plots and sheets share: colours, fonts, and curves that are read through their noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import ImageFont

INK, FAINT, PAPER = "#1e1e1e", "#787878", "#ffffff"
"""Text, lesser text, and what they stand on; Pillow and matplotlib both read them."""
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c77d0a", "#3aa6a6", "#7a7a7a")
"""Lines that are told apart by colour alone."""


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has umlauts, unlike Pillow's own; the size is in pixels."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def draw_smoothed(axis: Any, x: Sequence[float], values: Sequence[float], *, color: Any, label: str) -> None:
    """Draw a curve on a matplotlib axis: its values faintly, and `smooth` of them over it."""
    axis.plot(x, values, color=color, alpha=0.22, linewidth=0.8)
    axis.plot(x, smooth(values), color=color, linewidth=2, label=label)


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a fiftieth of the curve, corrected for its start as in Adam."""
    keep = 1 - 1 / max(1, len(values) / 50)
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed
