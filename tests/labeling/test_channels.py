import numpy as np
import pytest
import torch

from videomac.data.synthetic import moving_shapes
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.propagation import propagate_stream
from videomac.evaluate.protocols import PropagationSettings
from videomac.labeling.channels import Channels, Geometry, short_side_for, too_small
from videomac.labeling.labels import Labels, Point


def test_pixels_and_cells_correspond():
    geometry = Geometry.fitted((480, 854), 240, 8)
    assert geometry.size == (240, 424) and geometry.grid == (30, 53)
    assert geometry.to_pixels(*geometry.to_cells(123.4, 56.7)) == pytest.approx((123.4, 56.7))
    assert Geometry((16, 16), (16, 16), 8).to_cells(3.5, 11.5) == (0, 1)


def test_a_point_comes_back_where_it_was_drawn():
    geometry = Geometry((96, 128), (96, 128), 8)
    rng = np.random.default_rng(0)
    given = {f"p{k}": Point(*rng.uniform((0, 0), (127, 95)).tolist()) for k in range(50)}
    given |= {"corner": Point(127, 95), "origin": Point(0, 0), "hidden": Point(50, 50, False)}
    labels = Labels(points={0: given})
    channels = Channels([], labels.point_names, geometry)
    maps = channels.draw(labels, 0, channels.blank())
    for name, point in given.items():
        x, y, share = channels.point(maps, name)
        if point.visible:
            assert (x, y) == pytest.approx((point.x, point.y), abs=1e-3) and share == 1
    assert channels.point(maps, "hidden")[2] == 0


def test_masks_go_to_the_grid_and_back_and_points_beside_them():
    ids = np.zeros((64, 96), np.uint8)
    ids[16:48, 8:40], ids[16:48, 56:88] = 3, 200
    labels = Labels(masks={0: ids}, points={0: {"nose": Point(20, 20)}})
    channels = Channels(labels.ids, labels.point_names, Geometry((64, 96), (64, 96), 8))
    assert len(channels) == 3 + 3 and list(channels.groups) == ["", "nose"]
    maps = channels.draw(labels, 0, channels.blank())
    assert torch.allclose(maps[:3].sum(0), torch.ones(8, 12))
    assert (channels.mask(maps) == ids).mean() > 0.98
    assert channels.point(maps, "nose")[:2] == pytest.approx((20, 20))


def test_a_mask_smaller_than_a_cell_does_not_vanish():
    ids = np.zeros((64, 64), np.uint8)
    ids[35:37, 35:37] = 1
    labels = Labels(masks={0: ids})
    channels = Channels([1], [], Geometry((64, 64), (64, 64), 8))
    found = channels.mask(channels.draw(labels, 0, channels.blank()))
    assert found[35:37, 35:37].any() and 16 <= found.sum() <= 100
    assert "object 1 covers 0.1 cells only" in too_small(labels, 1 / 8, 8)


def test_frames_are_taken_larger_where_labels_are_small():
    ids = np.zeros((720, 1280), np.uint8)
    ids[100:140, 100:140] = 1
    assert short_side_for(Labels(masks={0: ids}), (720, 1280), 8) == (360, "")
    ids[:] = 0
    ids[100:104, 100:104] = 2
    side, problem = short_side_for(Labels(masks={0: ids}), (720, 1280), 8)
    assert side == 720 and "object 2 covers 0.2 cells only and may get lost" in problem
    close = Labels(points={0: {str(k): Point(100.0 + 20 * k, 100) for k in range(4)}})
    side, problem = short_side_for(close, (480, 640), 8)
    assert side == 480 and problem == ""
    side, problem = short_side_for(close, (1440, 2560), 8)
    assert side == 1440 and problem == ""


def test_points_are_more_exact_than_the_grid():
    """On shapes that move by 1 to 4 pixels a frame, with cells of 8 pixels."""
    errors, on_grid = [], []
    for seed in (1, 2, 3):
        frames, ids = moving_shapes(12, (96, 128), seed=seed)
        corners = [np.argwhere((mask == 3).numpy()).min(0)[::-1] for mask in ids]
        start = np.argwhere((ids[0] == 3).numpy())[:, ::-1]
        points = start[np.random.default_rng(seed).choice(len(start), 6, replace=False)]
        labels = Labels(points={0: {str(k): Point(float(x), float(y)) for k, (x, y) in enumerate(points)}})
        channels = Channels([], labels.point_names, Geometry((96, 128), (96, 128), 8))
        extractor = FeatureExtractor("raw-pixels", stride=8)
        features = extractor(frames.float() / 255)
        settings = PropagationSettings(context_frames=7, topk=5, radius=4, temperature=0.1)
        for time, maps in enumerate(propagate_stream(features, channels.draw(labels, 0, channels.blank()), settings)):
            for name, point in zip(channels.points, points, strict=True):
                truth = point + corners[time] - corners[0]
                errors.append(np.hypot(*(np.array(channels.point(maps, name)[:2]) - truth)))
                row, column = divmod(int(maps[channels.groups[name]][0].argmax()), 16)
                on_grid.append(np.hypot(*(np.array(channels.geometry.to_pixels(column, row)) - truth)))
    print(f"median error {np.median(errors):.2f} pixels, of the strongest cell {np.median(on_grid):.2f}")
    assert np.median(errors) < 0.6 * np.median(on_grid)
