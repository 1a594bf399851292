"""What a user has labelled, read from pictures and tables of points; other tools' files are read by `formats`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from videomac.errors import UserError
from videomac.evaluate.images import Ids, numbered_files

LONGEST_NAME = 200
COLUMNS = ("name", "frame", "x", "y", "visible")


@dataclass(frozen=True)
class Point:
    """Where a named point is, in pixels of the video (origin at the centre of the top left one)."""

    x: float
    y: float
    visible: bool = True


@dataclass
class Labels:
    """Everything that is labelled.

    Attributes:
        masks: by frame, object ids `[H, W]`, 0 = background; such a mask holds all objects of its frame.
        points: by frame, the points that are labelled there; others are not known.
        names: of objects, by id, where the file has them.
    """

    masks: dict[int, Ids] = field(default_factory=dict)
    points: dict[int, dict[str, Point]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def frames(self) -> list[int]:
        """Numbers of the labelled frames, ascending."""
        return sorted({*self.masks, *self.points})

    @property
    def ids(self) -> list[int]:
        """The objects' ids, ascending, without the background."""
        return sorted({int(number) for mask in self.masks.values() for number in np.unique(mask)} - {0})

    @property
    def point_names(self) -> list[str]:
        """The points' names in the order in which they were first given."""
        return list(dict.fromkeys(name for frame in self.points.values() for name in frame))

    def add(self, other: Labels, source: Path) -> None:
        """Take over what another file labels.

        Raises:
            UserError: a mask or point has been given before.
        """
        for frame, mask in other.masks.items():
            if frame in self.masks:
                raise UserError(f"{source} labels frame {frame}, which has a mask already: leave one of them out")
            self.masks[frame] = mask
        for frame, points in other.points.items():
            if twice := set(points) & set(self.points.get(frame, {})):
                raise UserError(f"{source} labels {min(twice)} in frame {frame} a second time: leave one of them out")
            self.points.setdefault(frame, {}).update(points)
        self.names.update(other.names)

    def check(self, length: int, size: tuple[int, int], start: int, stop: int | None) -> None:
        """Refuse labels that do not belong to the part of a video.

        Args:
            length: frames of the video.
            size: (height, width) of its frames.
            start: first frame of the part.
            stop: the frame after its last; None is the end.

        Raises:
            UserError: nothing is labelled, or something outside the part or the frame.
        """
        stop = length if stop is None else min(stop, length)
        if not self.ids and not any(point.visible for frame in self.points.values() for point in frame.values()):
            raise UserError("nothing is labelled: the masks hold only background, and no point is visible")
        for frame in self.frames:
            if not 0 <= frame < length:
                raise UserError(
                    f"frame {frame} is labelled, but the video has frames 0 to {length - 1}: check its number"
                )
            if not start <= frame < stop:
                raise UserError(
                    f"frame {frame} is labelled, but --start and --stop take frames {start} to {stop - 1}: widen them, "
                    "or leave that frame out of the labels"
                )
        for name in self.point_names:
            if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
                raise UserError(
                    f"a point is called {name[:LONGEST_NAME]!r}: give it 1 to {LONGEST_NAME} printable characters"
                )
        for frame, mask in self.masks.items():
            if mask.shape != size:
                raise UserError(
                    f"the mask of frame {frame} is {mask.shape[1]}x{mask.shape[0]} pixels but the video is "
                    f"{size[1]}x{size[0]}: label frames at their full size"
                )
        for frame, points in self.points.items():
            for name, point in points.items():
                if point.visible and not (-0.5 <= point.x < size[1] - 0.5 and -0.5 <= point.y < size[0] - 0.5):
                    raise UserError(
                        f"point {name} of frame {frame} lies at ({point.x:g}, {point.y:g}), outside the "
                        f"{size[1]}x{size[0]} frame: correct it, or set visible to 0"
                    )


def read_index_png(path: Path) -> Ids:
    """An index mask; 16-bit grey counts as long as no id is above 255.

    Raises:
        UserError: not a picture, colours instead of ids, or ids above 255.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no ordinary file: pass an index PNG")
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
                raise UserError(
                    f"{path} is an {image.mode} picture, but a mask must hold object ids: save it as palette (P) or "
                    "8-bit grey (L) PNG"
                )
            ids = np.asarray(image).astype(np.int64)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path of the labels") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable picture ({error}): save it again as index PNG") from None
    if ids.max(initial=0) > 255:
        raise UserError(f"{path} has id {ids.max()}: ids go up to 255, so number the objects from 1")
    return ids.astype(np.uint8)


def is_number(name: str) -> bool:
    """Whether a name is a frame's number; `str.isdigit` also takes digits that `int` refuses."""
    return name.isascii() and name.isdigit()


def read_mask_folder(folder: Path) -> Labels:
    """Index PNGs named by frame number.

    Raises:
        UserError: there is none, a name that is no number, or a picture that is no mask.
    """
    files = numbered_files(folder, (".png",))
    if not files:
        raise UserError(f"{folder} holds no PNG: labels are index PNGs named by frame number, such as 00120.png")
    masks = {}
    for file in files:
        if not is_number(file.stem):
            raise UserError(f"{file} is not named by its frame number: call it such as 00120.png")
        if int(file.stem) in masks:
            raise UserError(f"{file} is the second mask of frame {int(file.stem)}: delete one of them")
        masks[int(file.stem)] = read_index_png(file)
    return Labels(masks=masks)


def read_points(path: Path) -> Labels:
    """Points as CSV or as a JSON list, with the keys name, frame, x, y and, unless all are, visible.

    Raises:
        UserError: unknown or missing columns, values that are no numbers, or a point that is there twice.
    """
    labels = Labels()
    for line, row in _rows(path):
        where = f"{path}, {line}"
        if unknown := sorted(map(str, row.keys() - {*COLUMNS, "confidence"})):
            raise UserError(f"{where}: unknown column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")
        if missing := [name for name in COLUMNS[:4] if row.get(name) is None]:
            raise UserError(f"{where}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}")
        name, frame, point = _point(row, where)
        if name in labels.points.setdefault(frame, {}):
            raise UserError(f"{where}: point {name} of frame {frame} is there twice: delete one of them")
        labels.points[frame][name] = point
    if not labels.points:
        raise UserError(f"{path} holds no point: nothing is labelled")
    return labels


def _rows(path: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        if path.suffix.lower() == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise UserError(f"{path} is neither COCO nor a list of points with {', '.join(COLUMNS)}")
            return [(f"entry {number}", row) for number, row in enumerate(rows)]
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [(f"line {number}", row) for number, row in enumerate(csv.DictReader(file), start=2)]
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as points ({error}): check the file") from None


def _point(row: Mapping[str, Any], where: str) -> tuple[str, int, Point]:
    visible_text = str(row.get("visible", 1) if row.get("visible") is not None else 1).strip().lower()
    if visible_text not in ("1", "0", "1.0", "0.0", "true", "false", ""):
        raise UserError(f"{where}: visible must be 0 or 1, but is {row['visible']!r}")
    visible = visible_text not in ("0", "0.0", "false")
    try:
        frame = int(str(row["frame"]))
        x, y = (float(row[key]) if str(row[key]).strip() or visible else 0.0 for key in ("x", "y"))
    except ValueError:
        raise UserError(
            f"{where}: frame must be a whole number, and x and y numbers, but they are "
            + ", ".join(repr(str(row[key])[:40]) for key in ("frame", "x", "y"))
        ) from None
    if visible and not (np.isfinite(x) and np.isfinite(y)):
        raise UserError(f"{where}: x and y of a visible point must be finite numbers")
    return str(row["name"]), frame, Point(x, y, visible)
