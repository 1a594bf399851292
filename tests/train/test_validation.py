from dataclasses import dataclass

import pytest
import torch

from videomac import VideoMAC
from videomac.data.split import split_held_out
from videomac.reconstruction.pairs import MaskedPairs, reconstruct_pairs
from videomac.train.validation import load_held_out


@dataclass(frozen=True)
class Numbers:
    """A video whose frame t has the value t everywhere."""

    name: str
    length: int
    fps: float = 24.0

    def __len__(self) -> int:
        return self.length

    def read(self, indices) -> torch.Tensor:
        assert all(0 <= index < self.length for index in indices)
        return torch.stack([torch.full((3, 64, 64), index, dtype=torch.uint8) for index in indices])


def videos(count: int, length: int) -> list[Numbers]:
    return [Numbers(f"video{index}", length) for index in range(count)]


def frames(excerpts) -> set[tuple[str, int]]:
    return {(v.name, int(v.read([t])[0, 0, 0, 0])) for v in excerpts for t in range(len(v))}


@pytest.mark.parametrize(
    ("count", "length", "pairs"), [(3, 100, 4), (1, 40, 4), (12, 30, 4), (40, 10, 4), (100, 5, 10)]
)
def test_no_frame_is_both_trained_on_and_held_out(count, length, pairs):
    training, held_out = split_held_out(videos(count, length), pairs, frame_gap=1)
    assert len(held_out) == min(count, pairs)
    assert not frames(training) & frames(held_out)
    assert frames(training) | frames(held_out) == frames(videos(count, length))
    share = len(frames(held_out)) / (count * length)
    assert share <= 0.11
    assert all(len(excerpt) > 1 for excerpt in held_out)


def test_many_videos_lose_whole_ones_and_few_their_ends():
    training, held_out = split_held_out(videos(40, 10), 4, frame_gap=1)
    assert {len(video) for video in training} == {10} and len(training) == 36
    training, held_out = split_held_out(videos(3, 100), 4, frame_gap=2)
    assert [excerpt.start for excerpt in held_out] == [90, 90, 90] and len(training) == 3


def test_short_videos_are_not_cut():
    training, held_out = split_held_out(videos(3, 12), 4, frame_gap=5)
    assert held_out == [] and len(training) == 3
    assert split_held_out(videos(3, 100), 0, frame_gap=1)[1] == []


def test_pairs_are_spread_over_the_excerpts_and_labelled():
    _, excerpts = split_held_out(videos(2, 100), 4, frame_gap=3)
    model = VideoMAC("test_convnext", decoder_width=16, mask_ratio=0.5)
    held_out = load_held_out(excerpts, 4, 3, (64, 64), model)
    assert held_out.pair.shape == (4, 2, 3, 64, 64) and held_out.mask.shape == (4, 2, 2)
    assert held_out.labels[0] == "video0, frames 91 and 94"
    again = load_held_out(excerpts, 4, 3, (64, 64), model)
    assert torch.equal(held_out.mask, again.mask) and torch.equal(held_out.pair, again.pair)


def test_evaluating_changes_neither_the_model_nor_the_random_state():
    model = VideoMAC("test_resnet", decoder_width=16, mask_ratio=0.5, backbone_args={"drop_path_rate": 0.5}).train()
    _, excerpts = split_held_out(videos(2, 100), 2, frame_gap=1)
    held_out = load_held_out(excerpts, 2, 1, (64, 64), model)
    held_out = MaskedPairs(torch.randn_like(held_out.pair), held_out.mask, held_out.labels)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    first, second = reconstruct_pairs(model, held_out), reconstruct_pairs(model, held_out)
    assert first.loss == second.loss and first.zero_loss == pytest.approx(1, abs=1e-3)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
