"""Write tests/golden/metrics.json: region, boundary and their statistics of tiny masks, counted the slow way.

Nothing here is taken from `videomac`: the definitions of the DAVIS benchmark, pixel by pixel and in whole numbers. Run
it again only when cases are added: `python tests/golden/make_metrics.py`.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).with_name("metrics.json")
TOLERANCE = Fraction(8, 1000)
"""Of the image's diagonal."""

Pixels = set[tuple[int, int]]
FULL: list[list[Any]] = [["box", 0, 0, 1000, 1000]]
# Height, width, prediction, truth. At a diagonal of 130.6 the tolerance is 1.045 pixels, and so 2; at 120 it is 0.96,
# and so 1: a tolerance 5 % smaller or larger changes one or the other.
CASES: list[tuple[int, int, list[list[Any]], list[list[Any]]]] = [
    *((100, 84, [["box", 20, 20 + shift, 60, 50 + shift]], [["box", 20, 20, 60, 50]]) for shift in range(5)),
    *((96, 72, [["box", 20 + shift, 20, 60, 50]], [["box", 20, 20, 60, 50]]) for shift in range(4)),
    (100, 84, [["disc", 50, 40, 25]], [["disc", 52, 41, 23]]),
    (96, 72, [["disc", 40, 30, 20]], [["disc", 41, 31, 20]]),
    (100, 84, [["disc", 50, 40, 25], ["disc", 50, 40, 12]], [["disc", 50, 40, 24], ["disc", 48, 43, 12]]),  # rings
    (100, 84, [["disc", 0, 0, 30]], [["disc", 3, 1, 30]]),  # cut by the border
    (100, 84, [["box", 70, 60, 1000, 1000]], [["box", 72, 58, 1000, 1000]]),  # to the last pixel
    (100, 84, [["box", 99, 83, 100, 84]], [["box", 99, 83, 100, 84]]),  # its contour lies to the north and west of it
    (100, 84, [["box", 10, 10, 11, 11]], [["box", 12, 10, 13, 11]]),
    (100, 84, [["box", 10, 10, 11, 11]], [["box", 12, 12, 13, 13]]),  # as far in each axis, but not in the disc
    (100, 84, [["box", 0, 40, 1000, 41]], [["box", 0, 43, 1000, 44]]),
    (100, 84, [["box", 40, 0, 41, 1000]], [["box", 42, 0, 43, 1000]]),
    (60, 200, [["disc", 30, 64, 20]], [["disc", 30, 66, 20]]),
    (60, 200, [["disc", 30, 128, 25], ["box", 5, 2, 20, 30]], [["disc", 29, 127, 25]]),
    (60, 200, [["box", 20, 150, 40, 1000]], [["box", 21, 152, 41, 1000]]),  # far to the right, and cut by the border
    (60, 200, [["disc", 30, 190, 15]], [["disc", 31, 188, 15]]),
    (20, 1000, [["box", 5, 400, 15, 450]], [["box", 6, 402, 15, 452]]),  # in the middle of a wide frame
    (60, 192, [["disc", 59, 191, 12]], [["disc", 57, 190, 12]]),
    (9, 150, [["box", 2, 3, 7, 140]], [["box", 2, 5, 7, 149]]),
    (150, 9, [["box", 3, 2, 140, 7]], [["box", 5, 2, 149, 7]]),
    (1, 70, [["box", 0, 10, 1, 69]], [["box", 0, 11, 1, 70]]),
    (1, 1, FULL, FULL),
    (20, 30, [], []),
    (20, 30, FULL, FULL),
    (20, 30, [], FULL),  # neither has a contour, though they have nothing in common
    (20, 30, [], [["box", 5, 5, 9, 9]]),
    (20, 30, [["box", 5, 5, 9, 9]], FULL),
    (20, 30, [["box", 2, 2, 5, 5]], [["box", 12, 20, 18, 28]]),
]
# Of each frame's J or F; None is no number. 0.5 itself is not recalled; quarters share their end points, and of 3, 7,
# 11, ... frames a cut falls between two.
SERIES: list[list[float | None]] = [
    [0.75],
    [0.9, 0.3],
    [0.9, 0.5, 0.2],
    [0.9, 0.8, 0.5, 0.1],
    [0.9, 0.7, 0.6, 0.5, 0.4],
    [0.95, 0.85, 0.7, 0.55, 0.5, 0.25],
    [0.95, 0.9, 0.8, 0.65, 0.45, 0.3, 0.05],
    [0.2, 0.4, 0.6, 0.8, 1.0, 0.9, 0.7, 0.5, 0.3],
    [0.97, 0.91, 0.83, 0.71, 0.59, 0.5, 0.41, 0.37, 0.23, 0.13, 0.02],
    [1.0, None, 0.9, 0.8, 0.5, None, 0.7, 0.2, 0.6, 0.1, None, 0.0],
    [step / 40 for step in range(41)],
    [(step * 7 % 10) / 10 for step in range(50)],
]


def draw(height: int, width: int, parts: list[list[Any]]) -> np.ndarray:
    """A mask from boxes (top, left, bottom, right) and discs (row, column, radius); each inverts what it covers."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=bool)
    for kind, *numbers in parts:
        if kind == "box":
            top, left, bottom, right = numbers
            mask ^= (top <= y) & (y < bottom) & (left <= x) & (x < right)
        else:
            row, column, radius = numbers
            mask ^= (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return mask


def pixels(mask: np.ndarray) -> Pixels:
    """Where a mask is set."""
    return {(int(y), int(x)) for y, x in np.argwhere(mask)}


def contour(mask: np.ndarray) -> Pixels:
    """Pixels that differ from a neighbour to the east, south or south-east; beyond the border there is none."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                if y + dy < height and x + dx < width and mask[y, x] != mask[y + dy, x + dx]:
                    found.add((y, x))
    return found


def region(prediction: np.ndarray, truth: np.ndarray) -> Fraction:
    """J: pixels of both over pixels of either."""
    a, b = pixels(prediction), pixels(truth)
    return Fraction(len(a & b), len(a | b)) if a | b else Fraction(1)


def boundary(prediction: np.ndarray, truth: np.ndarray) -> Fraction:
    """F: harmonic mean of the shares of each contour that lie near the other."""
    a, b = contour(prediction), contour(truth)
    if not a or not b:
        return Fraction(int(not a and not b))
    height, width = truth.shape
    radius = 0  # the tolerance in pixels, rounded up: the first whole number that is not below it
    while radius**2 < TOLERANCE**2 * (height**2 + width**2):
        radius += 1

    def share(contour: Pixels, other: Pixels) -> Fraction:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in other) for y, x in contour]
        return Fraction(sum(near), len(near))

    precision, recall = share(a, b), share(b, a)
    return 2 * precision * recall / (precision + recall) if precision + recall else Fraction(0)


def statistics(values: list[float | None]) -> dict[str, float]:
    """Mean, share above 0.5, and mean of the first quarter minus that of the last."""

    def mean(part: list[float | None]) -> Fraction:
        numbers = [Fraction(value) for value in part if value is not None]
        return sum(numbers, Fraction(0)) / len(numbers)

    # The five cuts are spread evenly over frames 1 to n; halves go up.
    cuts = [math.floor(1 + Fraction(len(values) - 1, 4) * index + Fraction(1, 2)) for index in range(5)]
    first, last = values[cuts[0] - 1 : cuts[1]], values[cuts[3] - 1 : cuts[4]]
    above = sum(value is not None and value > 0.5 for value in values)
    return {
        "mean": float(mean(values)),
        "recall": above / len(values),  # a frame without a number is not recalled
        "decay": float(mean(first) - mean(last)),
    }


def compute() -> dict[str, Any]:
    """Everything that the file holds."""
    masks = []
    for height, width, prediction, truth in CASES:
        a, b = draw(height, width, prediction), draw(height, width, truth)
        masks.append(
            {"shape": [height, width], "prediction": prediction, "truth": truth}
            | {"J": float(region(a, b)), "F": float(boundary(a, b))}
        )
    return {"masks": masks, "series": [{"values": values, **statistics(values)} for values in SERIES]}


if __name__ == "__main__":
    golden = compute()
    lines = {key: ",\n  ".join(json.dumps(case) for case in cases) for key, cases in golden.items()}
    text = ",\n".join(f' "{key}": [\n  {cases}\n ]' for key, cases in lines.items())
    GOLDEN.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
