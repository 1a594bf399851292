"""The metrics against the official evaluators' own numbers, and against slow and obvious references."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.golden import make_metrics
from videomac.evaluate import metrics


def read_ids(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def disc_boundary_f(prediction: np.ndarray, truth: np.ndarray) -> float:
    """The boundary measure as the DAVIS benchmark describes it, with OpenCV's dilation."""

    def contour(mask: np.ndarray) -> np.ndarray:
        east, south, both = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
        east[:, :-1], south[:-1], both[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        edge = (mask ^ east) | (mask ^ south) | (mask ^ both)
        edge[-1] = mask[-1] ^ east[-1]
        edge[:, -1] = mask[:, -1] ^ south[:, -1]
        edge[-1, -1] = False
        return edge

    radius = math.ceil(0.008 * np.linalg.norm(truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.uint8)
    a, b = contour(prediction), contour(truth)
    near_a, near_b = (cv2.dilate(edge.astype(np.uint8), disc) > 0 for edge in (a, b))
    if a.sum() == 0 or b.sum() == 0:
        return float(a.sum() == b.sum())
    precision, recall = (a & near_b).sum() / a.sum(), (b & near_a).sum() / b.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def read_table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), max(1.0, min(height, width) / 12))
    return noise > np.quantile(noise, rng.uniform(0.05, 0.95))


def test_every_frame_of_two_real_sequences_equals_the_official_values(shared_data: Path) -> None:
    golden = shared_data / "davis-golden"
    values: dict[str, list[tuple[float, float]]] = {}
    for row in read_table(golden / "per_frame.csv"):
        paths = [
            golden / "inputs" / side / row["sequence"] / f"{row['frame']}.png" for side in ("single_pred", "single_gt")
        ]
        prediction, truth = (read_ids(path) == 1 for path in paths)
        ours = float(metrics.jaccard(prediction, truth)), float(metrics.boundary_f(prediction, truth))
        assert ours == (float(row["J"]), float(row["F"]))
        values.setdefault(row["sequence"], []).append(ours)
    for row in read_table(golden / "per_sequence.csv"):
        j, f = zip(*values[row["sequence"]], strict=True)
        assert len(j) == int(row["n_frames_scored"])
        for name, series in (("J", j), ("F", f)):
            ours = metrics.statistics(series)
            official = [float(row[f"{name}_{key}"]) for key in ("mean", "recall", "decay")]
            assert [ours.mean, ours.recall, ours.decay] == official


def test_objects_that_come_late_vanish_or_are_dropped_equal_the_official_values(shared_data: Path) -> None:
    golden = shared_data / "davis-golden"
    inputs = golden / "inputs"
    rows = {row["sequence_object"]: row for row in read_table(golden / "official_davis_multiobject.csv")}
    total = rows.pop("ALL_OBJECTS_MEAN")
    ours: dict[str, list[float]] = {}
    for folder in sorted((inputs / "multi_gt").iterdir()):
        frames = sorted(folder.glob("*.png"))
        count = int(read_ids(frames[0]).max())
        scored = [
            metrics.jaccard_and_boundary(
                read_ids(inputs / "multi_pred" / folder.name / path.name), read_ids(path), count
            )
            for path in frames[1:-1]
        ]
        for index in range(count):
            j, f = (metrics.statistics([frame[side][index] for frame in scored]) for side in (0, 1))
            ours[f"{folder.name}_{index + 1}"] = [j.mean, j.recall, j.decay, f.mean, f.recall, f.decay]
    keys = [f"{name}_{key}" for name in "JF" for key in ("mean", "recall", "decay")]
    assert ours == {name: [float(row[key]) for key in keys] for name, row in rows.items()}
    means = np.mean([ours[name] for name in rows], axis=0)
    np.testing.assert_allclose(means, [float(total[key]) for key in keys], rtol=0, atol=1e-15)


def edge_case_masks(height: int, width: int) -> dict[str, np.ndarray]:
    box, one, corner, column, pixel = (np.zeros((height, width), dtype=bool) for _ in range(5))
    box[10:20, 10:30] = True
    one[5, 5] = True
    corner[40:, 50:] = True
    pixel[-1, -1] = True
    column[:, -1] = True
    return {
        "empty": np.zeros((height, width), dtype=bool),
        "full": np.ones((height, width), dtype=bool),
        "box": box,
        "one": one,
        "bottom_right": corner,
        "box_shift1": np.roll(box, 1, axis=1),
        "box_shift3": np.roll(box, 3, axis=1),
        "corner_px": pixel,
        "right_col": column,
    }


def test_edge_cases_equal_the_official_values(shared_data: Path) -> None:
    golden = json.loads((shared_data / "davis-golden" / "official_davis_edge_cases.json").read_text())
    masks = edge_case_masks(*golden["shape"])
    assert len(golden["pairs"]) == 81
    for pair in golden["pairs"]:
        prediction, truth = masks[pair["pred"]], masks[pair["gt"]]
        assert float(metrics.jaccard(prediction, truth)) == pair["J"], pair
        assert float(metrics.boundary_f(prediction, truth)) == pair["F"], pair
    for case in golden["db_statistics"]:
        ours = metrics.statistics(case["values"])
        assert [ours.mean, ours.recall, ours.decay] == case["MRD"]


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 70), (70, 1), (5, 63), (5, 64), (5, 65), (48, 128), (97, 131), (480, 854), (9, 9000)]
)
def test_boundary_equals_the_dilation_by_a_disc(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    masks = [blob(rng, *shape) for _ in range(8)] + [rng.random(shape) > 0.5, rng.random(shape) > 0.99]
    masks += [np.zeros(shape, dtype=bool), np.ones(shape, dtype=bool)]
    for index, prediction in enumerate(masks):
        for truth in masks[index % 3 :: 3]:
            assert float(metrics.boundary_f(prediction, truth)) == disc_boundary_f(prediction, truth)


SMALL = json.loads(make_metrics.GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", SMALL["masks"], ids=lambda case: "x".join(map(str, case["shape"])))
def test_small_masks_have_the_figures_of_a_count_pixel_by_pixel(case: dict[str, Any]) -> None:
    prediction, truth = (make_metrics.draw(*case["shape"], case[side]) for side in ("prediction", "truth"))
    figures = pytest.approx((case["J"], case["F"]), abs=1e-12)
    assert (float(metrics.jaccard(prediction, truth)), float(metrics.boundary_f(prediction, truth))) == figures
    ids = prediction * 1, truth * 1  # the same as object 1 of an index mask, which has the tolerance a second time
    (j,), (f,) = metrics.jaccard_and_boundary(*ids, num_objects=1)
    assert (j, f) == figures


@pytest.mark.parametrize("case", SMALL["series"], ids=lambda case: str(len(case["values"])))
def test_short_series_have_the_figures_of_a_count_frame_by_frame(case: dict[str, Any]) -> None:
    ours = metrics.statistics([math.nan if value is None else value for value in case["values"]])
    expected = case["mean"], case["recall"], case["decay"]
    assert (ours.mean, ours.recall, ours.decay) == pytest.approx(expected, abs=1e-12)


def test_the_golden_file_is_what_its_script_computes() -> None:
    assert make_metrics.compute() == SMALL


@pytest.mark.parametrize("radius", [1, 2, 63, 64, 65, 70, 130, 200])
def test_a_tolerance_in_pixels_reaches_as_far_as_it_says(radius: int) -> None:
    rng = np.random.default_rng(radius)
    points = rng.integers(0, (12, 300), (2, 2, 2))  # two single pixels in each mask
    offsets = np.array([[0, radius], [0, radius + 1], [0, radius // 2], [0, radius - 1]])  # and some at its very limit
    pairs = [(points[0], points[1]), *((np.array([[6, 70]]), np.array([[6, 70]]) + offset) for offset in offsets)]
    for prediction, truth in pairs:
        masks = np.zeros((2, 12, 300), dtype=bool)
        for mask, pixels in zip(masks, (prediction, truth), strict=True):
            mask[tuple(pixels.T)] = True
        edges = [sorted(make_metrics.contour(mask)) for mask in masks]
        near = [
            np.mean([any(math.dist(pixel, other) <= radius for other in edges[1 - side]) for pixel in edges[side]])
            for side in (0, 1)
        ]
        expected = 2 * near[0] * near[1] / sum(near) if sum(near) else 0
        assert float(metrics.boundary_f(masks[0], masks[1], tolerance=radius)) == pytest.approx(expected, abs=1e-12)
    assert metrics.boundary_f(masks[0], masks[1], tolerance=radius + 0.9) == pytest.approx(expected)  # rounded down


def test_batches_and_tensors() -> None:
    rng = np.random.default_rng(0)
    prediction, truth = (rng.random((2, 3, 20, 30)) > 0.5 for _ in range(2))
    j, f = metrics.jaccard(prediction, truth), metrics.boundary_f(prediction, truth)
    assert j.shape == f.shape == (2, 3) and j.dtype == f.dtype == np.float64
    assert j[1, 2] == (prediction[1, 2] & truth[1, 2]).sum() / (prediction[1, 2] | truth[1, 2]).sum()
    assert f[1, 2] == metrics.boundary_f(prediction[1, 2], truth[1, 2])
    tensors = torch.from_numpy(prediction), torch.from_numpy(truth)
    assert torch.equal(metrics.jaccard(*tensors), torch.from_numpy(j))
    assert torch.equal(metrics.boundary_f(*tensors), torch.from_numpy(f))
    assert metrics.boundary_f(prediction, truth, tolerance=1).shape == (2, 3)


def test_misuse_is_refused() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    with pytest.raises(TypeError, match="must be boolean, got int64"):
        metrics.jaccard(mask.astype(np.int64), mask)
    with pytest.raises(ValueError, match="same shape"):
        metrics.boundary_f(mask, mask[:2])
    with pytest.raises(ValueError, match="same shape"):
        metrics.jaccard(mask[0], mask[0])
    with pytest.raises(ValueError, match="no frame was scored"):
        metrics.statistics([])
    with pytest.raises(ValueError, match="tolerance"):
        metrics.boundary_f(mask, mask, tolerance=0)


def test_mean_iou_equals_counting_pixel_by_pixel() -> None:
    rng = np.random.default_rng(3)
    frames = [(rng.integers(0, 5, (7, 9)), rng.integers(0, 6, (7, 9))) for _ in range(4)]
    for _, truth in frames:
        truth[0, :2] = 255, 20  # no class: not counted
    matrix = sum(metrics.confusion_matrix(prediction, truth) for prediction, truth in frames)
    scores = []
    for label in range(20):
        hits = either = 0
        for prediction, truth in frames:
            for p, t in zip(prediction.ravel(), truth.ravel(), strict=True):
                if 0 <= t < 20:
                    hits += p == t == label
                    either += label in (p, t)
        if either:
            scores.append(hits / either)
    assert len(scores) == 6  # class 5 is never predicted and scores 0; classes 6 to 19 occur nowhere
    assert metrics.mean_iou(matrix) == pytest.approx(sum(scores) / len(scores), abs=1e-15)
    for class_ in (20, -1):
        with pytest.raises(ValueError, match="0 to 19"):
            metrics.confusion_matrix(np.array([[3, class_]]), np.array([[0, 0]]))
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.confusion_matrix(np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_a_class_of_one_pixel_counts_and_pixels_of_no_class_do_not() -> None:
    matrix = metrics.confusion_matrix(np.array([[0, 1, 2, 3]]), np.array([[0, 1, -1, 20]]), num_classes=20)
    assert matrix.sum() == 2 and metrics.class_iou(matrix)[:2].tolist() == [1, 1]
    assert metrics.mean_iou(matrix) == 1
    assert math.isnan(metrics.mean_iou(np.zeros((20, 20), dtype=np.int64)))


def slow_pck(videos: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> float:
    """Word by word from the description: pool videos and frames per joint, then average the joints."""
    hits, seen = [0] * 15, [0] * 15
    for prediction, truth in videos:
        for frame in range(1, len(truth)):
            visible = [joint for joint in range(15) if prediction[frame, joint, 0] >= 0]
            if not visible:
                continue
            x, y = ([truth[frame, joint, axis] for joint in visible] for axis in (0, 1))
            size = 0.6 * math.sqrt((max(x) - min(x)) ** 2 + (max(y) - min(y)) ** 2)
            for joint in visible:
                error = math.dist(prediction[frame, joint], truth[frame, joint])
                seen[joint] += 1
                hits[joint] += error <= threshold * size
    return sum(h / s for h, s in zip(hits, seen, strict=True) if s) / sum(s > 0 for s in seen)


def test_pck_equals_counting_joint_by_joint() -> None:
    rng = np.random.default_rng(1)
    videos = []
    for frames in (3, 6, 2):
        truth = rng.uniform(0, 300, (frames, 15, 2))
        prediction = truth + rng.normal(0, 30, truth.shape)
        prediction = np.abs(prediction)
        prediction[rng.random((frames, 15)) < 0.2] = -2.0
        prediction[:, 4] = -2.0  # a joint that is never seen
        videos.append((prediction, truth))
    stacked = np.concatenate([metrics.keypoint_distances(p[1:], t[1:], p[1:, :, 0] >= 0) for p, t in videos])
    for threshold in metrics.PCK_THRESHOLDS:
        assert metrics.pck(stacked, threshold) == pytest.approx(slow_pck(videos, threshold), abs=1e-12)


def test_a_distance_that_equals_the_threshold_is_correct() -> None:
    truth = np.array([[[10.0, 10.0], [13.0, 14.0]]])  # a box of diagonal 5, so a size of 3
    prediction = truth + np.array([[[1.5, 0.0], [0.0, 0.3]]])
    distances = metrics.keypoint_distances(prediction, truth, np.ones((1, 2), dtype=bool))
    assert distances[0].tolist() == pytest.approx([0.5, 0.1])
    assert [metrics.pck(distances, threshold) for threshold in (0.49, 0.5, 0.05)] == [0.5, 1, 0]  # of joints seen once
    assert metrics.PCK_THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5)
    small = metrics.keypoint_distances(prediction / 10, truth / 10, np.ones((1, 2), dtype=bool))
    assert small == pytest.approx(distances)


def test_one_visible_joint_counts_as_right_only_when_it_is_exact() -> None:
    truth = np.array([[[4.0, 5.0], [8.0, 9.0]]] * 2)
    prediction = truth.copy()
    prediction[1, 0, 0] += 1
    visible = np.array([[True, False]] * 2)
    distances = metrics.keypoint_distances(prediction, truth, visible)
    assert distances[0, 0] == 0 and distances[1, 0] == math.inf and np.isnan(distances[:, 1]).all()
    assert metrics.pck(distances, 0.5) == 0.5
