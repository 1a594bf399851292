"""How sure each frame's labels are, and which frames would help most if they were labelled too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from videomac.labeling.channels import Channels

Floats = npt.NDArray[np.float64]
LEAST_STEP = 1.0
"""Doubt that every frame adds to the way from a labelled one, however sure its votes are: as much as full doubt."""


def certainty(channels: Channels, maps: Float[Tensor, "channels rows columns"]) -> dict[str, float]:
    """How much the votes agree, for each label, in [0, 1].

    For an object it is the share of the votes that it gets in its own cells: the mean of its map, weighted by the map.
    Votes that go to one label only give 1. For a point it is the share of the votes that the strongest cell got.
    """
    found = {}
    for number, map_ in zip(channels.ids, maps[1 : channels.num_masks], strict=True):
        found[str(number)] = float(map_.square().sum() / map_.sum().clamp(min=1e-6))
    for name in channels.points:
        found[name] = float(maps[channels.groups[name]][0].max())
    return {name: round(min(max(value, 0.0), 1.0), 4) for name, value in found.items()}


def presence(channels: Channels, maps: Float[Tensor, "channels rows columns"]) -> dict[str, float]:
    """How much of each label there is: cells of an object, and 1 for a point that gets any votes."""
    found = {str(n): float(map_.sum()) for n, map_ in zip(channels.ids, maps[1 : channels.num_masks], strict=True)}
    found |= {name: float(maps[channels.groups[name]][0].max() > 0) for name in channels.points}
    return {name: round(value, 3) for name, value in found.items()}


def agreement(channels: Channels, forward: Tensor, backward: Tensor) -> dict[str, float]:
    """How much both passes agree where both have their say: J of the masks on the grid; 1 / (1 + cells) of points."""
    found = {}
    a, b = (channels.cells(maps) for maps in (forward, backward))
    for index, number in enumerate(channels.ids, start=1):
        union = int(((a == index) | (b == index)).sum())
        found[str(number)] = int(((a == index) & (b == index)).sum()) / union if union else 1.0
    for name in channels.points:
        here, there = (channels.geometry.to_cells(*channels.point(maps, name)[:2]) for maps in (forward, backward))
        found[name] = 1 / (1 + float(np.hypot(here[0] - there[0], here[1] - there[1])))
    return {name: round(value, 4) for name, value in found.items()}


def doubt_of(rows: Sequence[Mapping[str, float]], labelled: Sequence[bool]) -> Floats:
    """How unsure each frame is, 0 in labelled ones: the mean over its labels of 1 - certainty / that of labelled ones.

    Certainty is compared with that of the labelled frames, for a small or thin object has less of it from the start.
    """
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])
    reference = values[np.array(labelled, dtype=bool)].max(0, initial=1e-6)
    doubt: Floats = (1 - np.minimum(values / reference, 1)).mean(1)
    return np.where(labelled, 0.0, doubt)


def share_of(rows: Sequence[Mapping[str, float]], labelled: Sequence[bool]) -> Floats:
    """How much of what is labelled each frame shows, in [0, 1]: the mean over the labels of `presence`."""
    values = np.array([list(row.values()) for row in rows])
    most = values[np.array(labelled, dtype=bool)].max(0, initial=1e-6)
    share: Floats = np.minimum(values / most, 1).mean(1)
    return share


def label_next(doubt: Floats, share: Floats, labelled: Sequence[int], count: int) -> list[int]:
    """Indices of the frames whose labelling would help most, the best first, each chosen as if those before were done.

    Errors add up on the way from the nearest labelled frame, the faster the less sure the votes are: a frame is as far
    from a labelled one as the doubt of all frames between. Chosen is what brings all frames nearest to a label. A frame
    in which an object is small or hidden has little to hand on, so that its gain counts for less: by the square of the
    share, which was better than the share itself on real sequences.

    Args:
        doubt: of each frame, from `doubt_of`.
        share: of the labels that each frame shows, from `share_of`.
        labelled: indices of labelled frames.
        count: how many to choose.
    """
    way: Floats = np.cumsum(doubt + LEAST_STEP)
    distance = np.abs(way[:, None] - way[None])
    nearest = distance[:, list(labelled)].min(1)
    chosen: list[int] = []
    for _ in range(min(count, len(doubt) - len(set(labelled)))):
        gain = np.maximum(nearest[:, None] - distance, 0).sum(0) * share**2
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, distance[:, best])
    return chosen


def plot(
    path: Path,
    frames: Sequence[int],
    rows: Sequence[Mapping[str, float]],
    labelled: Sequence[int],
    suggested: Sequence[int],
) -> None:
    """Draw the certainty of every label over the frames; labelled frames are lines, suggested ones triangles."""
    from matplotlib.figure import Figure

    from videomac.utils.plots import COLOURS, FAINT, INK

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axis = figure.subplots()
    for number, name in enumerate(rows[0]):
        axis.plot(frames, [row[name] for row in rows], color=COLOURS[number % len(COLOURS)], linewidth=1, label=name)
    for number, frame in enumerate(labelled):
        axis.axvline(frame, color=INK, linewidth=1, label="labelled" if number == 0 else None)
    axis.plot(list(suggested), [0.02] * len(suggested), "^", color=INK, label="label next")
    axis.set(xlabel="frame", ylabel="share of the votes", ylim=(0, 1.02))
    for before, after in pairwise(frames):
        if after - before > 1 and after - before > 2 * (frames[1] - frames[0]):
            axis.axvspan(before, after, color=FAINT, alpha=0.15)
    if len(rows[0]) <= 16:
        axis.legend(ncols=2, fontsize=7, loc="lower left")
    figure.savefig(path, dpi=110)
