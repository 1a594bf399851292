from __future__ import annotations

import pytest
import torch
from torch import Tensor

from videomac.models.losses import consistency_loss, normalize_patches, patchify, reconstruction_loss, unpatchify


def literal_loss(prediction: Tensor, goal: Tensor, mask: Tensor) -> float:
    """Eq. 1, one number at a time."""
    rows, columns = mask.shape[1:]
    errors = []
    for sample in range(len(mask)):
        for row in range(rows):
            for column in range(columns):
                if mask[sample, row, column]:
                    patch = row * columns + column
                    squares = [
                        (p - g) ** 2 for p, g in zip(prediction[sample, patch], goal[sample, patch], strict=True)
                    ]
                    errors.append(float(sum(squares)) / len(squares))
    return sum(errors) / len(errors)


def test_patch_values_run_row_column_channel() -> None:
    frames = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    patches = patchify(frames, 2)
    assert patches.shape == (2, 6, 12)
    for sample in range(2):
        for row in range(2):
            for column in range(3):
                values = [
                    frames[sample, channel, row * 2 + y, column * 2 + x]
                    for y in range(2)
                    for x in range(2)
                    for channel in range(3)
                ]
                assert patches[sample, row * 3 + column].tolist() == values


@pytest.mark.parametrize("patch_size", [1, 4, 14, 32])
def test_unpatchify_undoes_patchify(patch_size: int) -> None:
    frames = torch.randn(2, 3, 3 * patch_size, 5 * patch_size)
    assert torch.equal(unpatchify(patchify(frames, patch_size), (3, 5)), frames)


def test_frames_that_the_patch_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="10x12 pixels cannot be cut into patches of 4"):
        patchify(torch.zeros(1, 3, 10, 12), 4)


def test_normalisation_uses_the_unbiased_variance() -> None:
    patch = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    mean, variance = 3.0, (4 + 1 + 0 + 9) / 3
    expected = [(v - mean) / (variance + 1e-6) ** 0.5 for v in patch.tolist()]
    assert normalize_patches(patch.view(1, 1, 4)).flatten().tolist() == pytest.approx(expected, rel=1e-14)


def test_a_flat_patch_becomes_zero() -> None:
    assert torch.equal(normalize_patches(torch.full((1, 2, 12), 7.0)), torch.zeros(1, 2, 12))


def test_losses_equal_the_literal_sum() -> None:
    torch.manual_seed(0)
    prediction, goal = torch.randn(2, 3, 6, 12, dtype=torch.float64)
    mask = torch.rand(3, 2, 3) < 0.6
    expected = pytest.approx(literal_loss(prediction, goal, mask), rel=1e-12)
    assert reconstruction_loss(prediction, goal, mask).item() == expected
    assert consistency_loss(prediction, goal, mask).item() == expected


def test_one_hidden_patch_counts_whole() -> None:
    goal = torch.zeros(2, 4, 12)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[1, 0, 1] = True
    assert reconstruction_loss(goal + 3, goal, mask).item() == 9


def test_visible_patches_do_not_count() -> None:
    torch.manual_seed(0)
    prediction, goal = torch.randn(2, 2, 4, 12)
    mask = torch.tensor([[[True, False], [False, True]], [[False, True], [True, True]]])
    before = reconstruction_loss(prediction, goal, mask)
    prediction[~mask.flatten(1)] = float("nan")
    assert torch.equal(reconstruction_loss(prediction, goal, mask), before)


def test_nothing_hidden_in_both_frames_is_zero_and_has_a_zero_gradient() -> None:
    prediction = torch.randn(2, 4, 12, requires_grad=True)
    loss = consistency_loss(prediction, torch.randn(2, 4, 12), torch.zeros(2, 2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert not prediction.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    # In half precision the squares (90000) overflow float16, and bfloat16 cannot tell 300 from 301.
    prediction = torch.full((1, 4, 3072), 300.0).to(dtype)
    goal = torch.zeros(1, 4, 3072, dtype=torch.float32)
    goal[..., ::2] = 1
    loss = reconstruction_loss(prediction, goal, torch.ones(1, 2, 2, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((300**2 + 299**2) / 2, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_two_reconstructions_in_half_precision_differ_in_float32(dtype: torch.dtype) -> None:
    first, second = torch.full((1, 4, 3072), 300.0).to(dtype), torch.zeros(1, 4, 3072).to(dtype)
    loss = consistency_loss(first, second, torch.ones(1, 2, 2, dtype=torch.bool))
    assert loss.dtype == torch.float32 and loss.item() == 300**2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_float32(dtype: torch.dtype) -> None:
    patches = torch.linspace(-300, 300, 3072).view(1, 1, 3072).to(dtype)
    normalised = normalize_patches(patches)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised, normalize_patches(patches.double()).float())


def test_double_stays_double() -> None:
    prediction = torch.randn(1, 4, 12, dtype=torch.float64)
    assert reconstruction_loss(prediction, prediction, torch.ones(1, 2, 2, dtype=torch.bool)).dtype == torch.float64
    assert normalize_patches(prediction).dtype == torch.float64
