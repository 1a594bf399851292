"""Pictures of a journey there and back: the scores of all clips, and in some of them the tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from videomac.evaluate.cycle import Return
from videomac.evaluate.cycle_clips import PIECES, Planted
from videomac.utils.plots import COLOURS, FAINT, INK

Ids = npt.NDArray[np.uint8]
HOME, ASTRAY = "#22c55e", "#ff2d2d"
_EDGED = [Stroke(linewidth=3, foreground="black"), Normal()]
WIDTH = 3.4
"""Of a picture, in inches."""


@dataclass(frozen=True)
class Shown:
    """A clip for the picture.

    Attributes:
        name: of the clip.
        planted: with its pieces.
        returns: what became of them, by the network's name.
    """

    name: str
    planted: Planted
    returns: Mapping[str, Return]


def draw_clips(clips: Sequence[Shown], path: Path) -> None:
    """Draw a row a clip: its pieces, and for each network where it saw them in the last frame, and back in the first.

    Args:
        clips: at least one.
        path: of the PNG.
    """
    titles = ["first frame, pieces planted"]
    for name in clips[0].returns:
        titles += [f"{name}: last frame", f"{name}: back in the first frame"]
    shapes = [clip.planted.pieces.shape[1] / clip.planted.pieces.shape[2] for clip in clips]
    size = WIDTH * len(titles), 0.7 + sum(WIDTH * shape + 0.25 for shape in shapes)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(clips), len(titles), squeeze=False, height_ratios=shapes)
    for number, (row, clip) in enumerate(zip(axes, clips, strict=True)):
        _draw_clip(row, clip, titles if number == 0 else [""] * len(titles))
    handles: list[Any] = [
        tuple(Patch(color=color, alpha=0.6) for color in COLOURS[:PIECES]),
        Line2D([], [], color="white", linewidth=1.5, path_effects=_EDGED),
        Line2D([], [], color=HOME, marker="o", markersize=5),
        Line2D([], [], color=ASTRAY, marker="o", markersize=5),
    ]
    labels = ["a piece, as it was followed", "where it is", "track of a place that came home", "of one that did not"]
    evenly = {tuple: HandlerTuple(ndivide=None, pad=0)}
    figure.legend(handles, labels, handler_map=evenly, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, format="png", dpi=100)


def _draw_clip(row: Sequence[Axes], clip: Shown, titles: Sequence[str]) -> None:
    """Fill the pictures of one clip."""
    frames, pieces = clip.planted.frames.permute(0, 2, 3, 1).numpy(), clip.planted.pieces.numpy()
    _show(row[0], frames[0], pieces[0])
    row[0].set_title(titles[0], fontsize=10)
    row[0].set_ylabel(clip.name.replace(", ", "\n"), fontsize=8)
    for number, home in enumerate(clip.returns.values()):
        last, first = row[1 + 2 * number], row[2 + 2 * number]
        _show(last, frames[-1], pieces[-1], home.there[-1].numpy())
        _draw_tracks(last, home, pieces[0])
        _show(first, frames[0], pieces[0], home.back[0].numpy())
        last.set_title(titles[1 + 2 * number], fontsize=10)
        first.set_title(f"{titles[2 + 2 * number]}\nscore {home.score:.2f}".strip(), fontsize=10)


def _show(axis: Axes, frame: Ids, truth: Ids, found: Ids | None = None) -> None:
    """A frame, the pieces as they were found on it in grey, and outlines of where they are."""
    if found is None:
        axis.imshow(frame)
    else:
        axis.imshow(frame.mean(-1), cmap="gray", vmin=-60, vmax=255)
        axis.imshow(np.array([to_rgba("black", 0), *(to_rgba(color, 0.6) for color in COLOURS[:PIECES])])[found])
    for piece in range(1, PIECES + 1):
        if (truth == piece).any():
            outline = axis.contour(truth == piece, levels=[0.5], colors="white", linewidths=1.5)
            outline.set_path_effects(_EDGED)
    axis.set_xticks([])
    axis.set_yticks([])


def _draw_tracks(axis: Axes, home: Return, first: Ids) -> None:
    """Lines from places on the pieces in the first frame to where these were in the last one."""
    height, width = first.shape
    rows, columns = home.origin.shape[1:]
    scale = np.array([height / rows, width / columns])
    cells = np.stack(np.meshgrid(np.arange(0, rows, 2), np.arange(0, columns, 2), indexing="ij"), -1).reshape(-1, 2)
    begin = (cells + 0.5) * scale
    y, x = begin.astype(int).T
    on_piece = first[y, x] > 0
    end = (home.origin.numpy()[:, cells[:, 0], cells[:, 1]].T + 0.5) * scale
    right = home.back[0].numpy()[y, x] == first[y, x]
    colours = np.where(right, HOME, ASTRAY)[on_piece].tolist()
    lines = np.stack([begin, end], axis=1)[on_piece][..., ::-1]
    axis.add_collection(LineCollection(list(lines), colors=colours, linewidths=1))
    axis.scatter(lines[:, 1, 0], lines[:, 1, 1], s=9, c=colours, zorder=3)


def draw_scores(scores: Mapping[str, Sequence[float]], interval: tuple[float, float], path: Path) -> None:
    """Draw the scores of all clips, those of one clip joined, and the network's lead over its random weights.

    Args:
        scores: of each clip, by the network's name; the first is the network, the second its random initialisation.
        interval: 95 % interval of the mean lead.
        path: of the PNG.
    """
    names, values = list(scores), np.array(list(scores.values()))
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    left.plot(range(len(names)), values, color=FAINT, alpha=0.4, linewidth=0.8, marker="o", markersize=3)
    for place, (mean, color) in enumerate(zip(values.mean(1), (*COLOURS[:3], FAINT), strict=False)):
        left.plot([place - 0.16, place + 0.16], [mean] * 2, color=color, linewidth=3)
        left.annotate(f"{mean:.3f}", (place + 0.19, mean), va="center", color=color, fontweight="bold")
    left.set_xticks(range(len(names)), names)
    left.set_xlim(-0.4, len(names) - 0.4)
    left.set_ylim(0, 1)
    left.set_ylabel("score, a line a clip")
    lead = np.sort(values[0] - values[1])
    right.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    right.scatter(lead, np.arange(len(lead)) + 1, s=14, color=FAINT)
    mean = float(lead.mean())
    right.plot(interval, [0, 0], color=COLOURS[0], marker="|", markersize=9)
    right.plot(mean, 0, color=COLOURS[0], marker="o")
    right.set_yticks([0, len(lead)], ["mean", "best clip"])
    right.set_title(f"{mean:+.3f}, 95 %: {interval[0]:+.3f} to {interval[1]:+.3f}", fontsize=10)
    right.set_xlabel(f"{names[0]} minus {names[1]}, a dot a clip")
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def draw_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw the score over the epochs.

    Args:
        rows: "epoch", "score", and "low" and "high" of its lead over the first row, that of the random weights.
        path: of the PNG.
    """
    epochs, values = [row["epoch"] for row in rows], [row["score"] for row in rows]
    low, high = ([values[0] + row[key] for row in rows] for key in ("low", "high"))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.axhline(values[0], color=FAINT, linewidth=0.8, linestyle=":")
    axis.annotate("random weights", (epochs[-1], values[0]), ha="right", va="bottom", color=FAINT)
    axis.fill_between(epochs, low, high, color=COLOURS[0], alpha=0.18, linewidth=0)
    axis.plot(epochs, values, color=COLOURS[0], marker="o")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("score, with the interval of its lead")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png", dpi=130)
