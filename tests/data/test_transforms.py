from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from videomac.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PairTransform,
    _change_color,
    denormalize,
    normalize,
    resize,
    resize_short_side,
)
from videomac.errors import UserError

AUGMENTATIONS = ["spatial", "color", "spatial+color", "none"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int, frames: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator(1))


def coordinates(height: int, width: int) -> torch.Tensor:
    """Two equal frames whose red is the row, green the column (in bytes), blue a constant."""
    frame = torch.zeros(3, height, width, dtype=torch.uint8)
    frame[0] = torch.arange(height, dtype=torch.uint8).view(-1, 1)
    frame[1] = torch.arange(width, dtype=torch.uint8).view(1, -1)
    frame[2] = 77
    return torch.stack([frame, frame])


def to_bytes(frames: torch.Tensor) -> torch.Tensor:
    return denormalize(frames) * 255


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(224, 224), (64, 96), (96, 32)])
def test_both_frames_get_the_same_parameters(augmentation: str, size: tuple[int, int]) -> None:
    frame = noise(90, 120, frames=1)
    transform = PairTransform(image_size=size, augmentation=augmentation)
    for seed in range(20):
        result = transform(torch.cat([frame, frame]), generator(seed))
        assert result.shape == (2, 3, *size)
        assert result.dtype == torch.float32 and result.is_contiguous()
        assert torch.equal(result[0], result[1])


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_crops_are_boxes_of_the_announced_area_and_ratio(size: tuple[int, int]) -> None:
    height, width = 200, 250
    transform = PairTransform(image_size=size, scale=(0.2, 0.6))
    shares, mirrored, corners = [], 0, []
    for seed in range(200):
        result = to_bytes(transform(coordinates(height, width), generator(seed)))[0]
        rows, columns, blue = result
        # The red and green of a coordinate image say which pixel each output pixel was taken from.
        assert (rows - rows[:, :1]).abs().max() <= 1.01 and (columns - columns[:1]).abs().max() <= 1.01
        torch.testing.assert_close(blue, torch.full_like(blue, 77), rtol=0, atol=1e-3)
        down, right = (rows[-5, 0] - rows[4, 0]) / (size[0] - 9), (columns[0, -5] - columns[0, 4]) / (size[1] - 9)
        assert down > 0
        mirrored += int(right < 0)
        crop_height, crop_width = float(down * size[0]), abs(float(right * size[1]))
        shares.append(crop_height * crop_width / (height * width))
        ratio = (crop_width / crop_height) / (size[1] / size[0])
        assert 0.96 * 3 / 4 < ratio < 1.04 * 4 / 3
        corners.append((float(rows.min()), float(columns.min())))
    assert 0.19 < min(shares) < 0.25 and 0.55 < max(shares) < 0.62
    assert 70 < mirrored < 130
    assert len(set(corners)) > 150 and min(corners)[0] < 3 and max(corners)[0] > 80


def test_the_crop_is_the_resized_box() -> None:
    """The pixels equal Pillow's resize of the same box to the rounding of one level or two.

    On a soft picture: where the kernel overshoots, clamping depends on which pass comes first, and Pillow swaps them.
    """
    frames = resize(noise(10, 14), (100, 140)).clamp(40, 210)
    transform = PairTransform(image_size=(64, 64), flip=False)
    for seed in range(5):
        top, left, height, width = transform._draw_crop(100, 140, generator(seed))
        result = to_bytes(transform(frames, generator(seed))).round()
        for frame, produced in zip(frames, result, strict=True):
            image = Image.fromarray(frame.permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
            expected = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BICUBIC))).permute(2, 0, 1)
            assert (expected - produced).abs().max() <= 2


def test_boxes_stay_inside_extreme_frames() -> None:
    for height, width in [(10, 400), (400, 10), (1, 1), (3, 2)]:
        for size in [(32, 32), (32, 128)]:
            transform = PairTransform(image_size=size)
            for seed in range(50):
                top, left, crop_height, crop_width = transform._draw_crop(height, width, generator(seed))
                assert 0 <= top <= top + crop_height <= height and crop_height > 0
                assert 0 <= left <= left + crop_width <= width and crop_width > 0
            assert transform(noise(height, width), generator()).shape == (2, 3, *size)


def test_no_flip_when_switched_off() -> None:
    transform = PairTransform(image_size=(32, 32), flip=False)
    for seed in range(30):
        columns = to_bytes(transform(coordinates(100, 100), generator(seed)))[0, 1]
        assert columns[0, -1] > columns[0, 0]


@pytest.mark.parametrize(("height", "width"), [(100, 150), (150, 100), (120, 120)])
def test_none_takes_the_centre_without_randomness(height: int, width: int) -> None:
    transform = PairTransform(image_size=(50, 50), augmentation="none")
    first, second = (transform(coordinates(height, width), generator(seed)) for seed in (0, 1))
    assert torch.equal(first, second)
    rows, columns, _ = to_bytes(first)[0]
    assert math.isclose(float(rows.mean()), (height - 1) / 2, abs_tol=0.5)
    assert math.isclose(float(columns.mean()), (width - 1) / 2, abs_tol=0.5)
    step = min(height, width) / 50
    assert math.isclose(float(rows[30, 0] - rows[10, 0]), 20 * step, abs_tol=1.1)
    assert math.isclose(float(columns[0, 30] - columns[0, 10]), 20 * step, abs_tol=1.1)


def test_color_changes_colors_and_not_positions() -> None:
    pair = torch.full((2, 3, 40, 40), 60, dtype=torch.uint8)
    pair[:, 0, :, 20:] = 200
    plain = PairTransform(image_size=(40, 40), augmentation="none")(pair, generator())
    results = [PairTransform(image_size=(40, 40), augmentation="color")(pair, generator(seed)) for seed in range(8)]
    assert all(not torch.equal(result, plain) for result in results)
    for result in results:
        assert torch.equal(result, result[..., :1, :].expand_as(result))  # rows stay alike
        assert torch.equal(result[..., :20], result[..., :1].expand(2, 3, 40, 20))  # the edge stays at column 20
        assert not torch.allclose(result[..., 19], result[..., 20])
    assert len({float(result.sum()) for result in results}) == 8


def test_color_changes_equal_torchvisions() -> None:
    frames = resize(noise(10, 14), (50, 70)).clamp(90, 150)  # nothing reaches 0 or 255
    unchanged = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    for name in ["brightness", "contrast", "saturation"]:
        for factor in (0.6, 0.9, 1.4):
            changed = _change_color(frames, **{**unchanged, name: factor}).int()
            expected = getattr(TF, f"adjust_{name}")(frames / 255, factor) * 255
            assert (changed - expected).abs().max() <= 0.51, (name, factor)
            assert (changed - frames).abs().max() > 2
    assert torch.equal(_change_color(frames, **unchanged), frames)
    everything = _change_color(frames, 0.9, 1.2, 0.8, 0.0).int()
    for order in ("brightness saturation contrast", "contrast saturation brightness"):
        expected = frames / 255
        for name in order.split():
            factor = {"brightness": 0.9, "contrast": 1.2, "saturation": 0.8}[name]
            expected = getattr(TF, f"adjust_{name}")(expected, factor)
        assert (everything - expected * 255).abs().max() <= 0.6


def test_hue_turns_like_torchvisions_and_keeps_luma() -> None:
    frames = torch.full((1, 3, 1, 6), 100, dtype=torch.uint8)
    for column, channels in enumerate([(0,), (0, 1), (1,), (1, 2), (2,), (2, 0)]):
        frames[0, list(channels), 0, column] = 150
    luma = torch.tensor([0.299, 0.587, 0.114])
    for turn in (-0.1, 0.05, 0.1):
        changed = _change_color(frames, 1, 1, 1, turn).float()[0, :, 0]
        expected = TF.adjust_hue(frames, turn).float()[0, :, 0]
        # HSV goes round by another way, but not in the other direction.
        moved, wanted = changed - frames[0, :, 0], expected - frames[0, :, 0]
        agreement = torch.nn.functional.cosine_similarity(moved, wanted, dim=0)
        assert agreement.min() > 0.2 and agreement.mean() > 0.6
        torch.testing.assert_close(luma @ changed, luma @ frames[0, :, 0].float(), rtol=0, atol=1)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_randomness_is_the_generators_alone(augmentation: str) -> None:
    transform = PairTransform(image_size=(32, 32), augmentation=augmentation)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = transform(noise(60, 80), generator(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(transform(noise(60, 80), generator(5)), first)
    if augmentation != "none":
        assert not torch.equal(transform(noise(60, 80), generator(6)), first)


def test_memory_layout_does_not_matter() -> None:
    frames = noise(70, 90)
    channels_last = frames.contiguous(memory_format=torch.channels_last)
    transform = PairTransform(image_size=(32, 32), augmentation="spatial+color")
    assert torch.equal(transform(frames, generator()), transform(channels_last, generator()))


def test_the_input_is_left_alone() -> None:
    for size in [(64, 64), (32, 32)]:
        frames = noise(64, 64)
        copy = frames.clone()
        for augmentation in AUGMENTATIONS:
            PairTransform(image_size=size, scale=(1, 1), augmentation=augmentation)(frames, generator())
        assert torch.equal(frames, copy)


def test_bicubic_overshoot_is_clamped_to_bytes() -> None:
    edge = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    edge[..., 16:] = 255
    enlarged = resize(edge, (128, 128))
    assert enlarged.dtype == torch.uint8
    assert enlarged[..., :50].max() == 0 and enlarged[..., 78:].min() == 255  # no wrap-around beside the edge
    assert bool((enlarged.diff(dim=-1).int() >= 0).all())


def test_resize_short_side_keeps_the_aspect_ratio() -> None:
    assert resize_short_side(noise(100, 200), 50).shape == (2, 3, 50, 100)
    assert resize_short_side(noise(200, 99), 33).shape == (2, 3, 67, 33)
    frames = noise(50, 70)
    assert resize_short_side(frames, 50) is frames


def test_normalize_and_denormalize() -> None:
    frames = noise(8, 9)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(normalize(frames), (frames / 255 - mean) / std)
    torch.testing.assert_close(denormalize(normalize(frames)), frames / 255)
    torch.testing.assert_close(normalize(frames[0]), normalize(frames)[0])
    with pytest.raises(TypeError, match="float32"):
        normalize(frames.float())


@pytest.mark.parametrize(
    "options",
    [
        {"augmentation": "colour"},
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.2)},
        {"scale": (0.2, 1.5)},
        {"image_size": (0, 4)},
    ],
)
def test_bad_options_are_named(options: dict) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        PairTransform(**options)
