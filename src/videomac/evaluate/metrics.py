"""The numbers of the three benchmarks, equal to their official evaluators.

- DAVIS: region similarity J, boundary measure F, and their mean, recall and decay over a sequence;
- VIP: mean intersection over union from one confusion matrix;
- JHMDB: PCK, the percentage of correct keypoints.

Masks are packed 64 pixels to a word, so that comparing, counting and dilating them costs a few passes over some fifty
kilobytes instead of half a million pixels; all counts are integers, and the divisions are those of the official code,
so the results are equal to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import torch

Bits = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.integer]

VIP_CLASSES = 20
PCK_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal


@overload
def jaccard(prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor: ...
@overload
def jaccard(prediction: BoolArray, truth: BoolArray) -> Floats: ...
def jaccard(prediction: BoolArray | torch.Tensor, truth: BoolArray | torch.Tensor) -> Floats | torch.Tensor:
    """Region similarity J: intersection over union of binary masks.

    Args:
        prediction: bool `[..., H, W]`, an array or a tensor.
        truth: bool `[..., H, W]` of the same shape.

    Returns:
        float64 `[...]` in [0, 1]; two empty masks score 1. A tensor if `prediction` is one, else an array.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the shapes differ or have fewer than two dimensions.
    """
    a, b, batch = _packed_pair(prediction, truth)
    values: Floats = np.array([_jaccard(x, y) for x, y in zip(a, b, strict=True)]).reshape(batch)
    return torch.from_numpy(values) if isinstance(prediction, torch.Tensor) else values


@overload
def boundary_f(prediction: torch.Tensor, truth: torch.Tensor, tolerance: float = ...) -> torch.Tensor: ...
@overload
def boundary_f(prediction: BoolArray, truth: BoolArray, tolerance: float = ...) -> Floats: ...
def boundary_f(
    prediction: BoolArray | torch.Tensor, truth: BoolArray | torch.Tensor, tolerance: float = BOUNDARY_TOLERANCE
) -> Floats | torch.Tensor:
    """Boundary measure F: harmonic mean of the precision and recall of the contours' pixels.

    A pixel is on the contour if it differs from its east, south or south-east neighbour; it is found if a contour pixel
    of the other mask lies within `ceil(tolerance * diagonal)` pixels (`tolerance` itself if it is >= 1).

    Args:
        prediction: bool `[..., H, W]`, an array or a tensor.
        truth: bool `[..., H, W]` of the same shape.
        tolerance: fraction of the image's diagonal, or pixels if >= 1.

    Returns:
        float64 `[...]` in [0, 1]; 1 if neither mask has a contour, 0 if just one has.

    Raises:
        TypeError: a mask is not boolean.
        ValueError: the shapes differ or have fewer than two dimensions, or the tolerance is not positive.
    """
    if tolerance <= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    a, b, batch = _packed_pair(prediction, truth)
    height, width = truth.shape[-2:]
    radius = int(tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(height, width)))
    values: Floats = np.array([_boundary_f(x, y, width, radius) for x, y in zip(a, b, strict=True)]).reshape(batch)
    return torch.from_numpy(values) if isinstance(prediction, torch.Tensor) else values


def jaccard_and_boundary(prediction: Integers, truth: Integers, num_objects: int) -> tuple[Floats, Floats]:
    """J and F of every object of one frame.

    Args:
        prediction: integer `[H, W]`, object ids, 0 = background.
        truth: integer `[H, W]`.
        num_objects: ids 1 to `num_objects` are scored.

    Returns:
        J and F, float64 `[num_objects]` each.
    """
    height, width = truth.shape
    radius = math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width))
    j, f = np.empty(num_objects), np.empty(num_objects)
    for index in range(num_objects):
        a, b = _pack(prediction == index + 1), _pack(truth == index + 1)
        j[index], f[index] = _jaccard(a, b), _boundary_f(a, b, width, radius)
    return j, f


@dataclass(frozen=True)
class Statistics:
    """Mean, recall (share above 0.5) and decay (first quarter minus last quarter) of one object's values over time."""

    mean: float
    recall: float
    decay: float


def statistics(values: Sequence[float] | Floats) -> Statistics:
    """Summarise the per-frame values of one object as the DAVIS benchmark does.

    The four quarters share their end points, which lie at `round(linspace(1, m, 5) + 1e-10)`.

    Args:
        values: J or F in the order of the scored frames; NaN is skipped.

    Returns:
        The three numbers.

    Raises:
        ValueError: there is no value.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no frame was scored, so there is nothing to average")
    cuts = (np.round(np.linspace(1, array.size, 5) + 1e-10) - 1).astype(int)
    first, last = array[cuts[0] : cuts[1] + 1], array[cuts[3] : cuts[4] + 1]
    return Statistics(
        mean=float(np.nanmean(array)),
        recall=float(np.nanmean(array > 0.5)),
        decay=float(np.nanmean(first) - np.nanmean(last)),
    )


def confusion_matrix(prediction: Integers, truth: Integers, num_classes: int = VIP_CLASSES) -> npt.NDArray[np.int64]:
    """Count the pixels of each (true class, predicted class); pixels whose truth is no class are left out.

    Args:
        prediction: integer `[H, W]` in 0 to `num_classes` - 1.
        truth: integer `[H, W]`.
        num_classes: number of classes.

    Returns:
        int64 `[num_classes, num_classes]`, row = truth, column = prediction.

    Raises:
        ValueError: the shapes differ or a predicted class is out of range.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    if prediction.size and (prediction.min() < 0 or prediction.max() >= num_classes):
        raise ValueError(f"predicted classes must be 0 to {num_classes - 1}, found {prediction.max()}")
    valid = (truth >= 0) & (truth < num_classes)
    pairs = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def mean_iou(matrix: Integers) -> float:
    """Mean intersection over union of all classes, background included; classes that occur nowhere are skipped.

    Args:
        matrix: `[classes, classes]` counts, from `confusion_matrix`, summed over everything that is scored.

    Returns:
        The mean in [0, 1]; NaN if the matrix is empty.
    """
    iou = class_iou(matrix)
    return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")


def class_iou(matrix: Integers) -> Floats:
    """Intersection over union of each class; NaN for a class that occurs neither in the truth nor in the prediction.

    Args:
        matrix: `[classes, classes]` counts.

    Returns:
        float64 `[classes]`.
    """
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - hits
    iou: Floats = np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)
    return iou


def keypoint_distances(prediction: Floats, truth: Floats, visible: BoolArray) -> Floats:
    """Distance of each joint from the truth, in units of the person's size.

    The size is 0.6 times the diagonal of the tight box around the true joints that are visible in the prediction.

    Args:
        prediction: `[T, joints, 2]` pixels (x, y).
        truth: `[T, joints, 2]` pixels.
        visible: bool `[T, joints]`, whether the prediction gives the joint at all.

    Returns:
        float64 `[T, joints]`, NaN where not visible.
    """
    shown = np.where(visible[..., None], truth, np.nan)
    distances = np.full(visible.shape, np.nan)
    for frame in np.flatnonzero(visible.any(1)):
        extent = np.nanmax(shown[frame], 0) - np.nanmin(shown[frame], 0)
        size = 0.6 * math.sqrt(float((extent**2).sum()))
        error = np.sqrt(((prediction[frame] - shown[frame]) ** 2).sum(-1))
        # A box of no size (one visible joint): exactly right or infinitely wrong.
        distances[frame] = error / size if size > 0 else np.where(error > 0, np.inf, error)
    return distances


def pck(distances: Floats, threshold: float) -> float:
    """Percentage of correct keypoints, as a fraction.

    Each joint's share of distances <= `threshold` over all frames of all videos, then the plain mean over the joints.
    Joints that no frame shows are left out.

    Args:
        distances: `[frames, joints]` from `keypoint_distances`, all videos stacked; NaN = not visible, not counted.
        threshold: the a of PCK@a.

    Returns:
        The mean in [0, 1]; NaN if nothing is visible.
    """
    counted = (~np.isnan(distances)).sum(0)
    correct = (distances <= threshold).sum(0)
    shares = correct[counted > 0] / counted[counted > 0]
    return float(shares.mean()) if shares.size else float("nan")


def _packed_pair(
    prediction: BoolArray | torch.Tensor, truth: BoolArray | torch.Tensor
) -> tuple[list[Bits], list[Bits], tuple[int, ...]]:
    """Check two stacks of masks and pack them: two lists of packed masks and the batch shape."""
    a, b = (m.detach().cpu().numpy() if isinstance(m, torch.Tensor) else np.asarray(m) for m in (prediction, truth))
    for name, mask in (("prediction", a), ("truth", b)):
        if mask.dtype != np.bool_:
            raise TypeError(f"{name} must be boolean, got {mask.dtype}; compare index masks with an object's id first")
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"prediction {a.shape} and truth {b.shape} must have the same shape [..., height, width]")
    planes = [m.reshape(-1, *m.shape[-2:]) for m in (a, b)]
    return [_pack(m) for m in planes[0]], [_pack(m) for m in planes[1]], a.shape[:-2]


def _pack(mask: BoolArray) -> Bits:
    """Bool `[H, W]` -> words `[H, ceil(W / 64)]`: pixel x is bit x % 64 of word x // 64, bits beyond W are 0."""
    packed = np.packbits(mask, axis=-1, bitorder="little")
    words = np.zeros((mask.shape[0], -(-mask.shape[1] // 64) * 8), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view("<u8").astype(np.uint64, copy=False)


def _count(bits: Bits) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def _jaccard(a: Bits, b: Bits) -> float:
    union = _count(a | b)
    return _count(a & b) / union if union else 1.0


def _boundary_f(prediction: Bits, truth: Bits, width: int, radius: int) -> float:
    prediction, truth, width = _crop(prediction, truth, width, padding=1 + radius // 64)
    contour_p, contour_t = _contour(prediction, width), _contour(truth, width)
    num_p, num_t = _count(contour_p), _count(contour_t)
    if not num_p or not num_t:
        return 1.0 if num_p == num_t else 0.0
    precision = _count(contour_p & _dilate(contour_t, radius)) / num_p
    recall = _count(contour_t & _dilate(contour_p, radius)) / num_t
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _crop(a: Bits, b: Bits, width: int, padding: int) -> tuple[Bits, Bits, int]:
    """Cut two masks to their common bounding box and at least one pixel around it: no contour pixel lies elsewhere.

    Every row ends in `padding` empty words or more, so that what dilation pushes over its ends is lost there and does
    not reach the pixels of the next. Pixels beyond the cut never matter, for a dilated contour is only looked up
    where the other contour is.

    Returns:
        Both masks, and the number of columns of the image that are left.
    """
    either = a | b
    rows, words = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    top, bottom = (max(int(rows[0]) - 1, 0), int(rows[-1]) + 2) if rows.size else (0, 1)
    left, right = (max(int(words[0]) - 1, 0), int(words[-1]) + 1) if words.size else (0, 1)
    cut = []
    for mask in (a, b):
        rest = mask[top:bottom, left:right]
        cut.append(np.zeros((rest.shape[0], rest.shape[1] + padding), dtype=np.uint64))
        cut[-1][:, : rest.shape[1]] = rest
    return cut[0], cut[1], min(width - 64 * left, 64 * (right - left + padding))


def _east(bits: Bits, step: int) -> Bits:
    """The map whose pixel (y, x) is the given map's (y, x + step), step < 64; rows run into the one before."""
    flat = bits.ravel()
    moved: Bits = flat >> np.uint64(step)
    moved[:-1] |= flat[1:] << np.uint64(64 - step)
    return moved.reshape(bits.shape)


def _west(bits: Bits, step: int) -> Bits:
    """The map whose pixel (y, x) is the given map's (y, x - step), step < 64; rows run into the next."""
    flat = bits.ravel()
    moved: Bits = flat << np.uint64(step)
    moved[1:] |= flat[:-1] >> np.uint64(64 - step)
    return moved.reshape(bits.shape)


def _contour(bits: Bits, width: int) -> Bits:
    """Pixels that differ from their east, south or south-east neighbour.

    The last row looks east only, the last column south only, the last pixel nowhere.
    """
    east = _east(bits, 1)
    contour = bits ^ east
    contour[:-1] |= (bits[:-1] ^ bits[1:]) | (bits[:-1] ^ east[1:])
    word, bit = divmod(width - 1, 64)
    last = np.uint64(1) << np.uint64(bit)
    contour[:, word] &= last - np.uint64(1)
    contour[:-1, word] |= (bits[:-1, word] ^ bits[1:, word]) & last
    contour[:, word + 1 :] = 0
    return contour


def _dilate(bits: Bits, radius: int) -> Bits:
    """Dilate with the disc `x^2 + y^2 <= radius^2`: widen the rows step by step and join each with those in its reach.

    Bits in the padding may be set; they lie outside the image.
    """
    result: Bits = bits.copy()
    wide, half_width = bits, 0
    for dy in range(radius, -1, -1):
        while half_width < (reach := math.isqrt(radius**2 - dy**2)):
            step = min(reach - half_width, 2 * half_width + 1, 63)
            wide = wide | _east(wide, step) | _west(wide, step)
            half_width += step
        if dy == 0:
            result |= wide
        elif dy < len(bits):
            result[dy:] |= wide[:-dy]
            result[:-dy] |= wide[dy:]
    return result
