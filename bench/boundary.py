"""How long the boundary measure F takes, against the same measure written plainly with `cv2.dilate` and a disc.

    OMP_NUM_THREADS=1 python bench/boundary.py [--data DAVIS]

One thread, decoding excluded. The two are timed in turns on the same mask pairs; medians of the rounds are compared.
With `--data` the masks are the annotations of a folder in DAVIS layout (each against the next frame's), else blobs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from videomac.evaluate.metrics import boundary_f

Mask = npt.NDArray[np.bool_]


def contour(mask: Mask) -> Mask:
    """Pixels that differ from their east, south or south-east neighbour."""
    east, south, both = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
    edge = (mask ^ east) | (mask ^ south) | (mask ^ both)
    edge[-1] = mask[-1] ^ east[-1]
    edge[:, -1] = mask[:, -1] ^ south[:, -1]
    edge[-1, -1] = False
    return edge


def plain_boundary_f(prediction: Mask, truth: Mask) -> float:
    """The measure with OpenCV's dilation of the whole frame."""
    radius = math.ceil(0.008 * np.linalg.norm(truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.uint8)
    a, b = contour(prediction), contour(truth)
    near_a, near_b = (cv2.dilate(edge.astype(np.uint8), disc) > 0 for edge in (a, b))
    num_a, num_b = a.sum(), b.sum()
    if num_a == 0 or num_b == 0:
        return float(num_a == num_b)
    precision, recall = (a & near_b).sum() / num_a, (b & near_a).sum() / num_b
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def masks_of(data: Path | None) -> list[tuple[Mask, Mask]]:
    """Pairs of masks: consecutive annotations, or blobs of many sizes."""
    if data is not None:
        pairs = []
        for folder in sorted((data / "Annotations" / "480p").iterdir()):
            frames = [np.array(Image.open(path)) > 0 for path in sorted(folder.glob("*.png"))[::5]]
            pairs += list(zip(frames[1:], frames, strict=False))
        return pairs
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.standard_normal((480, 854)), (0, 0), 40) for _ in range(40)]
    blobs = [field > np.quantile(field, rng.uniform(0.6, 0.95)) for field in noise]
    return list(zip(blobs[1:], blobs, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = masks_of(arguments.data)
    times: dict[str, list[float]] = {"plain": [], "videomac": []}
    values: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, function in (("plain", plain_boundary_f), ("videomac", boundary_f)):
            start = time.perf_counter()
            values[name] = [float(function(a, b)) for a, b in pairs]
            times[name].append((time.perf_counter() - start) / len(pairs) * 1e3)
    assert values["plain"] == values["videomac"]
    ratio = statistics.median(p / v for p, v in zip(times["plain"], times["videomac"], strict=True))
    print(f"{len(pairs)} pairs of masks, equal results")
    print(f"plain cv2.dilate {statistics.median(times['plain']):.2f} ms a pair")
    print(f"videomac         {statistics.median(times['videomac']):.2f} ms a pair, {ratio:.1f} times faster")


if __name__ == "__main__":
    main()
