"""Fig. 4: propagated labels."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.evaluate.compare import COLUMNS, EvalRun
from videomac.figures.common import Drawn, Picture, save_figure, show
from videomac.utils.reading import read_text, reading

LABEL_COLUMNS = 5
LABELS = {"davis": "objects", "vip": "body parts", "jhmdb": "joints"}


@dataclass(frozen=True)
class Propagated:
    """One row of Fig. 4: a sequence of an evaluation."""

    title: str
    sequence: str
    frames: list[int]
    pictures: list[Picture]


def draw(out: Path, labels: Sequence[Propagated]) -> Drawn:
    """Write `fig4`, and which frames it shows."""
    save_figure(propagated_labels(labels), out / "fig4")
    data = [{"title": task.title, "sequence": task.sequence, "frames": task.frames} for task in labels]
    (out / "fig4.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return Drawn("propagated labels")


def read_labels(evaluation: EvalRun) -> Propagated:
    """Frames at equal distances of the sequence with the median score: neither the best nor the worst.

    Raises:
        UserError: the evaluation wrote no videos.
    """
    scores = sequence_scores(evaluation)
    overlays = {path.stem: path for path in sorted((evaluation.folder / "overlays").glob("*.mp4"))}
    ranked = sorted((stem for stem in scores if stem in overlays), key=lambda stem: (scores[stem], stem))
    if not ranked:
        raise UserError(f"{evaluation.folder} has no overlays/*.mp4: evaluate again without --videos false")
    stem = ranked[(len(ranked) - 1) // 2]
    clip = VideoFile(overlays[stem])
    frames = np.unique(np.linspace(0, len(clip) - 1, min(LABEL_COLUMNS, len(clip))).round().astype(int)).tolist()
    benchmark = evaluation.settings["benchmark"]
    key = COLUMNS[benchmark][0]
    title = f"{benchmark.upper()}, {LABELS[benchmark]}: {key} {100 * scores[stem]:.1f} of {stem}, the median sequence"
    title += f" (all: {100 * evaluation.numbers[key]:.1f})"
    return Propagated(title, stem, frames, [*clip.read(frames).permute(0, 2, 3, 1).numpy()])


def sequence_scores(evaluation: EvalRun) -> dict[str, float]:
    """The main number of each sequence, by the name of its files; DAVIS counts objects, which are averaged."""
    with reading(evaluation.folder / "metrics.csv"):
        return _sequence_scores(evaluation)


def _sequence_scores(evaluation: EvalRun) -> dict[str, float]:
    rows = list(csv.DictReader(io.StringIO(read_text(evaluation.folder / "metrics.csv"), newline="")))
    if evaluation.settings["benchmark"] != "davis":
        key = COLUMNS[evaluation.settings["benchmark"]][0]
        return {row["Sequence"].replace("/", "_"): float(row[key]) for row in rows}
    objects: dict[str, list[float]] = {}
    for row in rows:
        name = row["Sequence"].rpartition("_")[0]
        objects.setdefault(name, []).append((float(row["J-Mean"]) + float(row["F-Mean"])) / 2)
    return {name: sum(values) / len(values) for name, values in objects.items()}


def propagated_labels(tasks: Sequence[Propagated]) -> Figure:
    """Fig. 4: a row for each evaluation, from the given labels of the first frame to the end of the video."""
    columns = max(len(task.pictures) for task in tasks)
    heights = [2.6 * task.pictures[0].shape[0] / task.pictures[0].shape[1] + 0.7 for task in tasks]
    figure = Figure(figsize=(2.6 * columns, sum(heights)), layout="constrained")
    strips = figure.subfigures(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for strip, task in zip(strips, tasks, strict=True):
        strip.suptitle(task.title, x=0.005, ha="left", fontsize=11, fontweight="bold")
        axes = strip.subplots(1, columns, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
        for number, (axis, picture, frame) in enumerate(zip(axes, task.pictures, task.frames, strict=False)):
            show(axis, picture)
            axis.set_title(f"frame {frame}" + (", given" if number == 0 else ""), fontsize=9, color="#555555")
    return figure
