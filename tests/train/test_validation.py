"""The held-out pairs of a run: always the same ones, masks and crops included."""

import logging

import pytest
import torch

from tests.data.sample_videos import Numbers
from videomac import VideoMAC
from videomac.data.split import Excerpt, split_held_out
from videomac.data.transforms import normalize
from videomac.data.video import VideoError
from videomac.reconstruction.pairs import MaskedPairs, reconstruct_pairs
from videomac.train.validation import load_held_out


def test_pairs_are_spread_over_the_excerpts_and_labelled():
    _, excerpts = split_held_out([Numbers("video0", 100), Numbers("video1", 100)], 4, frame_gap=3)
    model = VideoMAC("test_convnext", decoder_width=16, mask_ratio=0.5)
    held_out = load_held_out(excerpts, 4, 3, (64, 64), model)
    assert held_out.pair.shape == (4, 2, 3, 64, 64) and held_out.mask.shape == (4, 2, 2)
    assert held_out.labels[0] == "video0, frames 91 and 94"
    again = load_held_out(excerpts, 4, 3, (64, 64), model)
    assert torch.equal(held_out.mask, again.mask) and torch.equal(held_out.pair, again.pair)


def test_a_gap_in_time_counts_in_frames_of_each_video():
    videos = [Numbers("film", 200, fps=24.0), Numbers("phone", 200, fps=60.0)]
    _, excerpts = split_held_out(videos, 2, frame_gap="40ms")
    model = VideoMAC("test_convnext", decoder_width=16, mask_ratio=0.5)
    held_out = load_held_out(excerpts, 2, "40ms", (64, 64), model)
    assert held_out.labels == ("film, frames 189 and 190", "phone, frames 189 and 191")


class Ramp:
    """Frames of 64x160 pixels that tell every place and frame: red is the column, green the row, blue the frame."""

    name, fps = "ramp", 24.0

    def __len__(self) -> int:
        return 20

    def read(self, indices) -> torch.Tensor:
        rows, columns = torch.meshgrid(torch.arange(64), torch.arange(160), indexing="ij")
        return torch.stack([torch.stack([columns, rows, torch.full_like(rows, i)]).byte() for i in indices])


def test_the_centre_is_shown_whatever_the_seed():
    """No crop, flip or colour is drawn: the numbers of two epochs, and of two runs, are of the same pixels."""
    video = Ramp()
    model = VideoMAC("test_convnext", decoder_width=16, mask_ratio=0.5)
    for seed in (0, 1):
        torch.manual_seed(seed)
        held_out = load_held_out([Excerpt(video, 0, 20)], 3, 2, (64, 64), model)
        for pair, first in zip(held_out.pair, (3, 9, 15), strict=True):
            assert torch.equal(pair, normalize(video.read([first, first + 2])[..., 48:112]))


def test_evaluating_changes_neither_the_model_nor_the_random_state():
    model = VideoMAC("test_resnet", decoder_width=16, mask_ratio=0.5, backbone_args={"drop_path_rate": 0.5}).train()
    _, excerpts = split_held_out([Numbers("video0", 100), Numbers("video1", 100)], 2, frame_gap=1)
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


def test_a_held_out_pair_that_cannot_be_read_is_left_out(caplog):
    class Broken(Numbers):
        def read(self, indices):
            raise VideoError(f"{self.name}: is damaged")

    model = VideoMAC("test_convnext", decoder_width=16)
    good, broken = Numbers("good", 40), Broken("broken", 40)
    with caplog.at_level(logging.WARNING):
        held_out = load_held_out([Excerpt(good, 30, 40), Excerpt(broken, 30, 40)], 4, 1, (64, 64), model)
    assert len(held_out.pair) == len(held_out.mask) == len(held_out.labels) == 2
    assert all(label.startswith("good") for label in held_out.labels) and caplog.text.count("broken: is damaged") == 2
    assert load_held_out([Excerpt(broken, 30, 40)], 2, 1, (64, 64), model) is None
