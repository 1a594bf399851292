from __future__ import annotations

import pickle

import pytest
import torch

from videomac.errors import UserError
from videomac.models.masking import MaskSampler, num_visible, random_mask


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [
        *((49, 0.75, 12), (49, 0.0, 49), (10, 0.9, 1), (196, 0.75, 49), (100, 0.65, 35), (20, 0.95, 1), (30, 0.1, 27)),
        *((55, 0.75, 13), (7, 0.5, 3), (5, 0.7, 1)),  # 13.75, 3.5 and 1.5
    ],
)
def test_visible_patches_are_rounded_down(patches: int, ratio: float, visible: int) -> None:
    assert num_visible(patches, ratio) == visible


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        random_mask(2, (7, 7), ratio)


def test_nothing_visible_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 4 patches visible"):
        random_mask(2, (2, 2), 0.9)


def test_every_sample_hides_the_same_number_but_other_patches() -> None:
    mask = random_mask(64, (5, 7), 0.75, torch.Generator().manual_seed(0))
    assert mask.shape == (64, 5, 7)
    assert mask.dtype == torch.bool
    assert (~mask).flatten(1).sum(1).tolist() == [8] * 64
    assert len({tuple(sample.flatten().tolist()) for sample in mask}) > 60


def test_every_patch_is_hidden_equally_often() -> None:
    mask = random_mask(20_000, (3, 4), 0.75, torch.Generator().manual_seed(1))
    # Standard error of each frequency: sqrt(.75 * .25 / 20000) = 0.003.
    torch.testing.assert_close(mask.double().mean(0), torch.full((3, 4), 0.75).double(), atol=0.015, rtol=0)


def test_generator_decides_and_the_global_seed_is_left_alone() -> None:
    state = torch.get_rng_state()
    first = random_mask(4, (7, 7), generator=torch.Generator().manual_seed(3))
    again = random_mask(4, (7, 7), generator=torch.Generator().manual_seed(3))
    other = random_mask(4, (7, 7), generator=torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_ratio_zero_hides_nothing() -> None:
    assert not random_mask(2, (7, 7), 0.0).any()


def test_three_quarters_are_hidden_unless_said_otherwise() -> None:
    assert (~random_mask(3, (10, 10))).flatten(1).sum(1).tolist() == [25] * 3
    assert (~MaskSampler((10, 10))(3)).flatten(1).sum(1).tolist() == [25] * 3


def test_a_sampler_draws_one_mask_for_both_frames_of_a_pair() -> None:
    sampler = pickle.loads(pickle.dumps(MaskSampler((5, 6), 0.6)))
    expected = random_mask(4, (5, 6), 0.6, torch.Generator().manual_seed(3))
    assert torch.equal(sampler(4, torch.Generator().manual_seed(3)), expected)


def test_an_asymmetric_sampler_draws_another_mask_for_each_frame() -> None:
    masks = MaskSampler((5, 6), 0.6, symmetric=False)(8, torch.Generator().manual_seed(3))
    assert masks.shape == (8, 2, 5, 6)
    assert set((~masks).flatten(2).sum(2).flatten().tolist()) == {12}
    assert len({tuple(mask.flatten().tolist()) for mask in masks.flatten(0, 1)}) == 16


@pytest.mark.parametrize(("ratio", "words"), [(1e-12, "hides none of 4 patches"), (0.99, "leaves none of 4 patches")])
def test_masks_from_which_nothing_can_be_learned_are_refused_before_the_first(ratio: float, words: str) -> None:
    with pytest.raises(UserError, match=words):
        MaskSampler((2, 2), ratio)
