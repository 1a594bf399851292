"""DeepLabCut's tables of body parts."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videomac.errors import UserError
from videomac.labeling.channels import Channels
from videomac.labeling.labels import Labels, Point

PLACE = {"x", "y"}
LIKELY = 0.6
"""DeepLabCut's own bound above which a prediction counts."""


def is_deeplabcut(path: Path) -> bool:
    """Whether a CSV file begins as DeepLabCut's do."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().startswith("scorer,")


def read_csv(path: Path) -> Labels:
    """Labels (CollectedData...csv) or predictions: every row a frame, by its number or the name of its picture.

    Body parts of several animals are called `animal.part`. Places that are empty, or less likely than .6, are not
    visible.

    Raises:
        UserError: it is not such a table.
    """
    try:
        return _parse(path, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of DeepLabCut ({error}): export it again") from None


def read_h5(path: Path) -> Labels:
    """The same as HDF5.

    Raises:
        UserError: pandas or PyTables is missing, or it is not such a table.
    """
    try:
        import pandas

        frame: Any = pandas.read_hdf(path)
    except ImportError:
        raise UserError(f"{path}: HDF5 needs pip install pandas tables; DeepLabCut writes a .csv beside it") from None
    except Exception:  # PyTables has its own errors, which are not of one family
        raise UserError(f"{path} is no table of DeepLabCut: pass the .csv beside it") from None
    return _parse(path, frame.to_csv())


def _parse(path: Path, text: str) -> Labels:
    rows = list(csv.reader(io.StringIO(text)))
    heads = {row[0]: row for row in rows[:4] if row}
    if not {"bodyparts", "coords"} <= heads.keys():
        raise UserError(f"{path} is no table of DeepLabCut: the rows bodyparts and coords are missing")
    coords, parts, animals = heads["coords"], heads["bodyparts"], heads.get("individuals")
    if any(len(row) != len(coords) for row in (parts, animals or coords)):
        raise UserError(f"{path} is no table of DeepLabCut: its heading rows are not of one length")
    kinds: dict[str, set[str]] = {}
    for column, kind in enumerate(coords):
        kinds.setdefault(f"{animals[column] if animals else ''} {parts[column]}", set()).add(kind)
    if odd := [name for name, given in kinds.items() if given & {*PLACE, "likelihood"} and not PLACE <= given]:
        raise UserError(f"{path} is no table of DeepLabCut: {odd[0].strip()} has not both x and y")
    labels = Labels()
    for number, row in enumerate(rows[rows.index(coords) + 1 :], start=rows.index(coords) + 2):
        if not row or len(row) != len(coords):
            continue
        values: dict[str, dict[str, float]] = {}
        for column, kind in enumerate(coords):
            if kind in ("x", "y", "likelihood"):
                animal = f"{animals[column]}." if animals and animals[column] != "single" else ""
                try:
                    value = float(row[column]) if row[column].strip() else float("nan")
                except ValueError:
                    raise UserError(f"{path}, line {number}: {row[column]!r} is not a number") from None
                values.setdefault(animal + parts[column], {})[kind] = value
        labels.points[_frame(path, number, row, coords)] = {name: _point(value) for name, value in values.items()}
    if not labels.points:
        raise UserError(f"{path} holds no frame: nothing is labelled")
    return labels


def _frame(path: Path, line: int, row: list[str], coords: list[str]) -> int:
    """The number at the end of what stands before the coordinates: 12, or labeled-data/video/img0012.png."""
    index = [row[column] for column, kind in enumerate(coords) if kind not in ("x", "y", "likelihood")]
    numbers = re.findall(r"\d+", Path(index[-1]).name)
    if not numbers:
        raise UserError(f"{path}, line {line}: {index[-1]!r} does not say which frame it is of")
    return int(numbers[-1][:30])


def _point(value: Mapping[str, float]) -> Point:
    there = value["x"] == value["x"] and value["y"] == value["y"]  # NaN is not
    if not there:
        return Point(0, 0, False)
    return Point(value["x"], value["y"], value.get("likelihood", 1.0) >= LIKELY)


def write_csv(out: Path, channels: Channels, rows: Mapping[int, Any]) -> None:
    """Write `dlc.csv`, as DeepLabCut writes its predictions: x, y and likelihood of every body part, a row a frame."""
    names = list(channels.points)
    several = all("." in name for name in names)
    split = [name.split(".", 1) if several else ["", name] for name in names]
    heads = [["scorer"] + ["videomac"] * 3 * len(names)]
    if several:
        heads.append(["individuals", *(animal for animal, _ in split for _ in range(3))])
    heads.append(["bodyparts", *(part for _, part in split for _ in range(3))])
    heads.append(["coords"] + ["x", "y", "likelihood"] * len(names))
    with (out / "dlc.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(heads)
        for frame in sorted(rows):
            points = [rows[frame]["points"][name] for name in names]
            # What we call hidden must be below the bound that DeepLabCut's tools use.
            likely = [max(share, LIKELY) if visible else min(share, 0.1) for _, _, visible, share in points]
            flat = [value for (x, y, _, _), share in zip(points, likely, strict=True) for value in (x, y, share)]
            writer.writerow([frame, *flat])
