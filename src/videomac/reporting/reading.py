"""What a folder that a command made holds, ready for the page."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from videomac.config import read_config
from videomac.evaluate.compare import COLUMNS
from videomac.reporting.charts import Series, chart
from videomac.utils.reading import read_text, reading
from videomac.utils.spacing import evenly_spaced

TITLES = {
    "pretrain": "Pre-training",
    "finetune": "Fine-tuning",
    "probe": "Linear probe and k-NN",
    "reconstruct": "Reconstruction",
    "figures": "Figures",
    "study": "Study",
    "export": "Export",
    "bench": "Cost of pre-training",
    "eval cycle": "Evaluation without labels",
    **{f"eval {benchmark}": f"Evaluation on {benchmark.upper()}" for benchmark in COLUMNS},
}
"""Command -> what its folders are called."""
HEADLINES = (
    "held_out_loss",
    "loss",
    "zero_loss",
    "top1",
    "top5",
    "linear_top1",
    "knn_top1",
    "steps",
    "pairs_per_second",
)
TABLES = ("metrics.csv", "classes.csv", "compare.csv", "table.csv", "runs.csv")
ABSOLUTE = re.compile(r"((?:[a-z-]+:(?=[/~]))?)(?:[/~]|[A-Za-z]:[/\\])")
"""The beginning of an absolute path, with what may stand before it, such as "local-dir:"."""
SHOWN_AS_CURVES = ("losses.png", "curves.png")
MOST_ROWS = 200


@dataclass(frozen=True)
class Media:
    """A picture or a video inside the page."""

    name: str
    uri: str


@dataclass(frozen=True)
class Table:
    """A CSV file."""

    name: str
    header: list[str]
    rows: list[list[str]]
    more: int


@dataclass(frozen=True)
class Part:
    """One folder."""

    name: str
    kind: str
    subject: str
    tiles: list[tuple[str, str]]
    settings: dict[str, str]
    metrics: list[tuple[str, str]]
    charts: list[str]
    pictures: list[Media]
    videos: list[Media]
    notes: list[str]
    tables: list[Table]
    left_out: Table | None
    environment: dict[str, str]
    command: str


def read_part(folder: Path, most_videos: int) -> Part:
    """Read whatever the folder holds.

    Raises:
        UserError: nothing that a command of ours made, or a damaged file.
    """
    with reading(folder):
        return _read_part(folder, most_videos)


def _read_part(folder: Path, most_videos: int) -> Part:
    settings = without_folders(read_config(folder))
    command = settings.pop("command")
    metrics = _json(folder / "metrics.json")
    benchmark = settings.get("benchmark")
    chosen, notes = _videos(folder, most_videos)
    shown = {media.name for media in chosen}
    charts, tables = _csv_files(folder)
    if not metrics and command != "export":  # which has no numbers
        notes.insert(0, "This run has not finished (there is no metrics.json): what follows is how far it got.")
    return Part(
        name=folder.resolve().name,
        kind=TITLES.get(command, command),
        subject=_subject(settings),
        tiles=_tiles(metrics, benchmark),
        settings={key: _text(value) for key, value in settings.items()},
        metrics=[(key.replace("_", " "), _text(value)) for key, value in metrics.items()],
        charts=charts,
        pictures=_pictures(folder, shown, skip_curves=bool(charts)),
        videos=chosen,
        notes=notes,
        tables=tables,
        left_out=_table(folder / "skipped.csv"),
        environment={key: _text(value) for key, value in _json(folder / "environment.json").items()},
        command=repeat(command, settings, folder),
    )


def without_folders(value: Any) -> Any:
    """Values with the last name alone of every absolute path, because the page is sent to people elsewhere."""
    if isinstance(value, dict):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and (found := ABSOLUTE.match(value)):
        return found[1] + re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def repeat(command: str, settings: Mapping[str, Any], folder: Path) -> str:
    """The command line that makes such a folder again, in a new one; empty if none would."""
    stored = shlex.quote(without_folders(str(folder / "config.yaml")))
    if command == "study":
        return f"videomac study {stored} --data CLIPS --benchmark DAVIS --out NEW"
    if not command.startswith("eval ") or command == "eval cycle":
        return f"videomac {command} --config {stored} --out NEW"
    weights, backbone = str(settings["weights"]), str(settings["features"]["backbone"])
    if weights == "as given":  # a module or function, which has no name on the command line
        return ""
    words = ["videomac", *command.split(), "--data", str(settings["data"])]
    source, _, network = weights.rpartition(" (")
    if network in ("online)", "target)"):
        words += ["--backbone", source, "--network", network[:-1]]
    elif network.startswith("seed"):
        words += ["--backbone", backbone, "--seed", str(settings["seed"])]
    elif weights in ("timm", "none"):
        words += ["--backbone", backbone, *(["--pretrained", "true"] if weights == "timm" else [])]
    else:
        words += ["--backbone", backbone, "--weights", weights]
    words += ["--protocol", str(settings["protocol"])]
    for key in settings["changed_settings"]:
        value = settings[key]
        words += [f"--{key}", str(value).lower() if isinstance(value, bool) else str(value)]
    words += ["--split", str(settings["split"]), "--precision", settings["precision"], "--out", "NEW"]
    sequences = settings.get("sequences")
    return shlex.join(words + (["--sequences", *sequences] if sequences else []))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with reading(path):
        found: dict[str, Any] = json.loads(read_text(path))
        if not isinstance(found, dict):
            raise ValueError("no mapping")
    return found


def _subject(settings: Mapping[str, Any]) -> str:
    """What the folder is about, in a line under its name."""
    features = settings.get("features")
    if isinstance(features, dict):
        where = f"stage {features['stage']}, stride {features['stride']}"
        return f"{features['backbone']}, weights: {settings['weights']}, {where}"
    parts = [str(settings[key]) for key in ("backbone", "checkpoint") if settings.get(key)]
    data = settings.get("data") or settings.get("video")
    return ", ".join(parts) + (f" on {Path(str(data)).name}" if data else "")


def _tiles(metrics: Mapping[str, Any], benchmark: str | None) -> list[tuple[str, str]]:
    if benchmark in COLUMNS:
        return [(key, f"{100 * metrics[key]:.1f}") for key in COLUMNS[benchmark] if key in metrics]
    found = [key for key in HEADLINES if key in metrics]
    return [(key.replace("_", " "), _text(metrics[key])) for key in (found or list(metrics))[:4]]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if value is None or isinstance(value, bool):  # not by ==: 1 is a number
        return {True: "yes", False: "no", None: "not set"}[value]
    return str(value)


def _csv_files(folder: Path) -> tuple[list[str], list[Table]]:
    """Curves of the files that count steps, tables of the others."""
    charts: list[str] = []
    tables: list[Table] = []
    for path in (folder / name for name in TABLES if (folder / name).is_file()):
        header, *rows = _rows(path)
        if rows and header[0] == "step":
            charts += _charts([dict(zip(header, row, strict=False)) for row in rows], header)
        elif (table := _table(path)) is not None:
            tables.append(table)
    return charts, tables


def _table(path: Path) -> Table | None:
    header, *rows = _rows(path) if path.is_file() else [[]]
    if not rows:
        return None
    shown = [[_cell(value) for value in row] for row in rows[:MOST_ROWS]]
    return Table(path.name, header, shown, max(0, len(rows) - MOST_ROWS))


def _rows(path: Path) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(read_text(path), newline="")) if row] or [[]]


def _cell(value: str) -> str:
    """Floats with four digits; of absolute paths the last name; everything else as it stands."""
    try:
        return f"{float(value):.4g}" if any(mark in value for mark in ".e") else value
    except ValueError:
        return str(without_folders(value))


def _charts(rows: Sequence[Mapping[str, str]], header: Sequence[str]) -> list[str]:
    """One chart for all losses, one for all accuracies, one for each other column that changes."""
    columns = {name: _column(rows, name) for name in header if name not in ("step", "epoch")}
    groups: dict[str, list[Series]] = {}
    for name, series in columns.items():
        if len(set(series.values)) > 1:
            label = name.replace("_", " ")
            group = "losses" if "loss" in name else "accuracy" if "top" in name else label
            groups.setdefault(group, []).append(Series(label, series.steps, series.values))
    return [chart(title, series, "step", f"{title}{number}") for number, (title, series) in enumerate(groups.items())]


def _column(rows: Sequence[Mapping[str, str]], name: str) -> Series:
    points: list[tuple[float, float]] = []
    for row in rows:
        try:
            points.append((float(row["step"]), float(row[name])))
        except (KeyError, ValueError):
            continue  # not measured at this step
    return Series(name, [step for step, _ in points], [value for _, value in points])


def _pictures(folder: Path, sequences: set[str], *, skip_curves: bool) -> list[Media]:
    """All pictures of the folder, and of its sheets those whose videos are shown (all, if there are no videos)."""
    found = [path for path in sorted(folder.glob("*.png")) if not (skip_curves and path.name in SHOWN_AS_CURVES)]
    sheets = sorted((folder / "sheets").glob("*.png"))
    found += [path for path in sheets if path.stem in sequences or not sequences]
    return [Media(path.stem, _uri(path, "image/png")) for path in found]


def _videos(folder: Path, most: int) -> tuple[list[Media], list[str]]:
    """Videos that browsers play, spread evenly over their names, and what is to be said of the others."""
    found = sorted([*folder.glob("*.mp4"), *(folder / "overlays").glob("*.mp4")])
    playable = [path for path in found if _plays(path)]
    notes = []
    if len(playable) < len(found):
        notes.append(f"{len(found) - len(playable)} videos are not H.264 with halved colour, which browsers need.")
    count = min(most, len(playable))
    chosen = [playable[index] for index in evenly_spaced(count, len(playable))]
    if count < len(playable):
        notes.append(f"{count} of {len(playable)} videos are shown, spread evenly over their names.")
    return [Media(path.stem, _uri(path, "video/mp4")) for path in chosen], notes


def _plays(path: Path) -> bool:
    try:
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            return bool(context.name == "h264" and context.pix_fmt == "yuv420p")
    except (av.FFmpegError, IndexError):
        return False


def _uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
