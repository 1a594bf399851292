"""Labels on the grid and back, against OpenCV, PIL and loops that say what the protocols say."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from videomac.evaluate import labels


def test_frames_are_resized_as_opencv_does() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (54, 96, 3), dtype=np.uint8)
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None]
    for height, width in ((54, 96), (48, 64), (30, 53), (80, 120), (54, 95)):
        ours = labels.resize_frames(tensor, (height, width))[0].permute(1, 2, 0).numpy()
        exact = cv2.resize(frame.astype(np.float32) / 255, (width, height), interpolation=cv2.INTER_LINEAR)
        assert np.abs(ours - exact).max() < 1e-5
        rounded = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)  # in fixed-point arithmetic
        assert np.abs(255 * ours - rounded).max() < 1


@pytest.mark.parametrize("grid", [(7, 11), (14, 20), (27, 40), (1, 1)])
def test_masks_come_to_the_grid_as_the_protocols_say(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    ids = cv2.resize(rng.integers(0, 4, (6, 8), dtype=np.uint8), (80, 54), interpolation=cv2.INTER_NEAREST)
    tensor = torch.from_numpy(ids)
    nearest = np.array(Image.fromarray(ids).resize(grid[::-1], Image.Resampling.NEAREST))
    ours = labels.masks_to_grid(tensor, 4, (54, 80), grid, "nearest")
    assert torch.equal(ours, torch.from_numpy(np.stack([nearest == label for label in range(4)])).float())
    ours = labels.masks_to_grid(tensor, 4, (54, 80), grid, "bilinear").numpy()
    channels = (ids[..., None] == np.arange(4)).astype(np.float32)
    exact = cv2.resize(channels, grid[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, exact.transpose(2, 0, 1), rtol=0, atol=1e-5)
    share = labels.masks_to_grid(tensor, 4, (54, 80), grid, "area")
    torch.testing.assert_close(share.sum(0), torch.ones(grid))
    if grid == (27, 40):  # cells of 2 x 2 pixels
        cells = channels.reshape(27, 2, 40, 2, 4).mean((1, 3)).transpose(2, 0, 1)
        np.testing.assert_allclose(share.numpy(), cells, rtol=0, atol=1e-6)


def test_the_decision_is_upsampled_argmax_and_nearest() -> None:
    maps = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))
    ours = labels.grid_to_ids(maps, (48, 64), (54, 80), class_normalization=False)
    upsampled = cv2.resize(maps.permute(1, 2, 0).numpy(), (64, 48), interpolation=cv2.INTER_LINEAR)
    small = Image.fromarray(upsampled.argmax(2).astype(np.uint8))
    assert np.array_equal(ours.numpy(), np.array(small.resize((80, 54), Image.Resampling.NEAREST)))


def test_nearest_is_pils_nearest() -> None:
    ids = np.random.default_rng(0).integers(0, 200, (48, 64), dtype=np.uint8)
    for size in ((54, 80), (24, 31), (480, 853), (100, 100), (7, 9), (48, 65), (1, 1)):
        expected = np.array(Image.fromarray(ids).resize(size[::-1], Image.Resampling.NEAREST))
        assert np.array_equal(labels.resize_ids(torch.from_numpy(ids), size).numpy(), expected)


def test_class_normalisation_is_per_channel_and_survives_constant_channels() -> None:
    maps = torch.zeros(4, 6, 8)
    maps[0] = 0.9
    maps[0, 2, 3] = 0.6
    maps[1, 2, 3] = 0.2  # faint, but nowhere stronger
    maps[3] = 0.3  # constant: 0 / 0 unless guarded
    plain = labels.grid_to_ids(maps, (48, 64), (48, 64), class_normalization=False)
    stretched = labels.grid_to_ids(maps, (48, 64), (48, 64), class_normalization=True)
    assert not plain.any()
    assert set(stretched.unique().tolist()) == {0, 1} and stretched[20, 28] == 1


def literal_blobs(joints: np.ndarray, rows: int, columns: int, truncate: bool) -> np.ndarray:
    """Sigma 0.5, a patch of 4 x 4 with its peak at index 2, overwritten and clipped."""
    corner = int if truncate else math.floor
    maps = np.zeros((16, rows, columns))
    for joint, (x, y) in enumerate(joints):
        for row in range(corner(y - 1.5), corner(y + 2.5)):
            for column in range(corner(x - 1.5), corner(x + 2.5)):
                if 0 <= row < rows and 0 <= column < columns:
                    dy, dx = row - corner(y - 1.5) - 2, column - corner(x - 1.5) - 2
                    maps[joint + 1, row, column] = math.exp(-2 * (dx**2 + dy**2))
    maps[0] = (maps[1:] == 0).all(0)
    return maps


@pytest.mark.parametrize("drawing", ["grid", "grid-truncated"])
def test_joints_are_drawn_as_blobs_on_the_grid(drawing: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        joints = rng.uniform(-20, [340, 260], (15, 2))
        ours = labels.joints_to_grid(joints, (240, 320), (40, 40), drawing)
        cells = joints * [40 / 320, 40 / 240]
        np.testing.assert_allclose(ours.numpy(), literal_blobs(cells, 40, 40, "trunc" in drawing), rtol=0, atol=1e-7)


def test_joints_in_the_frame_are_wide_blobs_without_background() -> None:
    joints = np.tile([100.0, 60.0], (15, 1))
    maps = labels.joints_to_grid(joints, (240, 320), (240, 320), "image")
    assert maps.shape == (15, 240, 320)
    assert maps[0, 60, 100] == 1 and maps[0, 60, 104] == pytest.approx(math.exp(-0.5)) and maps[0, 60, 113] == 0


def test_joints_are_read_as_weighted_means_of_their_best_cells() -> None:
    rng = np.random.default_rng(3)
    maps = rng.random((16, 20, 30)) ** 8
    maps[3] = 0  # joint 2 is lost
    ours = labels.grid_to_joints(torch.from_numpy(maps), (240, 320), "grid", 5)
    for joint in range(15):
        cells = sorted(((maps[joint + 1, y, x], x, y) for y in range(20) for x in range(30)), reverse=True)[:5]
        mass = sum(value for value, _, _ in cells)
        if joint == 2:
            assert ours[joint].tolist() == [-1, -1]
            continue
        x, y = (sum(cell[0] * cell[axis] for cell in cells) / mass for axis in (1, 2))
        assert ours[joint] == pytest.approx([x / 30 * 320, y / 20 * 240])


def test_a_joint_comes_back_from_where_it_was_drawn() -> None:
    joints = np.stack([np.arange(15) * 16.0 + 40, np.arange(15) * 8.0 + 40], axis=1)  # cells of 8 x 8 pixels
    maps = labels.joints_to_grid(joints, (240, 320), (30, 40), "grid")
    np.testing.assert_allclose(labels.grid_to_joints(maps, (240, 320), "grid", 5), joints, atol=1e-5)
    maps = labels.joints_to_grid(joints, (240, 320), (240, 320), "image")
    np.testing.assert_allclose(labels.grid_to_joints(maps, (240, 320), "image", 5), joints, atol=1e-5)
