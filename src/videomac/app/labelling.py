"""What somebody has labelled with the mouse: names, points and painted masks, with undo."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from videomac.errors import UserError
from videomac.evaluate.images import Ids, write_ids
from videomac.evaluate.overlays import COLOURS
from videomac.labeling.labels import COLUMNS, Labels, Point
from videomac.utils.run_dir import write_rows

STEPS_BACK, MOST_LABELS = 20, 255


class Labelling:
    """Labels of one clip as they grow.

    A label is a name with a number, from 1; it has a point, a mask, or both. The number is the mask's id.

    Attributes:
        names: by number.
        labels: what is labelled, in the form that `propagate` takes.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {1: "label 1"}
        self.labels = Labels()
        self._before: list[tuple[dict[int, str], Labels]] = []

    @staticmethod
    def colour(number: int) -> str:
        """The colour of a label on the page, which is that of its mask in `overlay.mp4`."""
        return "#{:02x}{:02x}{:02x}".format(*COLOURS[number].tolist())

    def add(self) -> int:
        """One more label; returns its number.

        Raises:
            UserError: there are as many as a mask can hold.
        """
        number = next((k for k in range(1, MOST_LABELS + 1) if k not in self.names), None)
        if number is None:
            raise UserError(f"there are {MOST_LABELS} labels, and a mask holds no more: remove one")
        self._remember()
        self.names[number] = next(
            name for k in range(1, MOST_LABELS + 2) if (name := f"label {k}") not in self.names.values()
        )
        self.names = dict(sorted(self.names.items()))
        return number

    def rename(self, number: int, name: str) -> None:
        """Call a label something else.

        Raises:
            UserError: the name is empty, or another label has it.
        """
        name, old = " ".join(name.split())[:80], self.names[number]
        if name == old:
            return
        if not name or name in self.names.values():
            raise UserError(
                f"{name!r} is another label's name: choose one of its own" if name else "a label has a name"
            )
        self._remember()
        self.names[number] = name
        for points in self.labels.points.values():
            if old in points:
                points[name] = points.pop(old)

    def remove(self, number: int) -> None:
        """Drop a label with all that has been labelled of it; the last one stays, empty."""
        self._remember()
        name = self.names[number]
        for mask in self.labels.masks.values():
            mask[mask == number] = 0
        for points in self.labels.points.values():
            points.pop(name, None)
        self._tidy()
        if len(self.names) > 1:
            del self.names[number]

    def point(self, frame: int, number: int, x: float, y: float) -> None:
        """Say where a label's point is in a frame."""
        self._remember()
        self.labels.points.setdefault(frame, {})[self.names[number]] = Point(round(x, 2), round(y, 2))

    def hide(self, frame: int, name: str) -> None:
        """Say that a point is not visible in a frame."""
        self._remember()
        self.labels.points.setdefault(frame, {})[name] = Point(0.0, 0.0, visible=False)

    def paint(self, frame: int, number: int, stroke: Sequence[Sequence[float]], radius: float, under: Ids) -> None:
        """Paint a stroke of a label into a frame's mask; number 0 erases.

        Args:
            frame: its number.
            number: of the label.
            stroke: (x, y) in pixels of the video.
            radius: of the brush, in the same pixels.
            under: the mask that is corrected where the frame has none of its own: what has been propagated, or zeros.
        """
        self._remember()
        image = Image.fromarray(self.labels.masks.get(frame, under).copy())
        draw, radius = ImageDraw.Draw(image), max(radius, 0.5)
        points = [(float(x), float(y)) for x, y in stroke]
        if len(points) > 1:
            draw.line(points, fill=number, width=max(1, round(2 * radius)))
        for x, y in points:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=number)
        self.labels.masks[frame] = np.array(image, dtype=np.uint8)

    def forget(self, frame: int) -> None:
        """Take back all that has been labelled in a frame."""
        self._remember()
        self.labels.masks.pop(frame, None)
        self.labels.points.pop(frame, None)

    def undo(self) -> None:
        """Take back the latest step."""
        if self._before:
            self.names, self.labels = self._before.pop()

    def write(self, folder: Path) -> list[Path]:
        """Write what is labelled as files that `propagate` reads; returns them.

        Raises:
            UserError: nothing is labelled.
        """
        files = []
        if self.labels.ids:
            masks = folder / "masks"
            masks.mkdir(parents=True, exist_ok=True)
            for frame, mask in self.labels.masks.items():
                write_ids(masks / f"{frame:05d}.png", mask)
            files.append(masks)
        if self.labels.points:
            folder.mkdir(parents=True, exist_ok=True)
            rows = [
                dict(zip(COLUMNS, (name, frame, point.x, point.y, int(point.visible)), strict=True))
                for frame, points in sorted(self.labels.points.items())
                for name, point in points.items()
            ]
            write_rows(folder / "points.csv", rows)
            files.append(folder / "points.csv")
        if not files:
            raise UserError("nothing is labelled yet: click a point, or paint an object, in any frame")
        return files

    def _remember(self) -> None:
        self._before = [*self._before[1 - STEPS_BACK :], (dict(self.names), copy.deepcopy(self.labels))]

    def _tidy(self) -> None:
        """Forget frames in which nothing is labelled any more."""
        self.labels.masks = {frame: mask for frame, mask in self.labels.masks.items() if mask.any()}
        self.labels.points = {frame: points for frame, points in self.labels.points.items() if points}
