"""A run says what it will do, and refuses what would be killed for its memory."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import videomac
from tests.train.runs import options, rows
from videomac.bench.command import peak_bytes
from videomac.config import read_config
from videomac.errors import UserError
from videomac.train import plan
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.pretrain import build_model


def planned(clips: Path, out: Path, **changed) -> tuple[videomac.VideoMAC, PretrainingData]:
    config = PretrainConfig(**options(clips, out, **changed))
    model = build_model(config)
    return model, PretrainingData(config, model)


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet", "test_efficientnet"])
def test_the_estimate_is_above_what_a_step_takes_and_not_far_above(clips: Path, tmp_path: Path, backbone: str) -> None:
    model, data = planned(clips, tmp_path, backbone=backbone)
    pair, mask = torch.randn(8, 2, 3, 64, 64), model.sample_mask(8, (64, 64))
    memory = plan.measure_memory(model, data, 1)
    taken = peak_bytes(lambda: model(pair, mask).loss.backward(), model, torch.device("cpu"))
    estimate = memory.weights + 8 * memory.per_pair
    assert taken < estimate < 6 * taken


def test_of_large_frames_a_part_is_measured(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = planned(clips, tmp_path, backbone="test_resnet", image_size=512, mask_ratio=0.75)
    whole = plan.measure_memory(model, data, 1)
    monkeypatch.setattr(plan, "PATCHES", 4)
    assert plan.measure_memory(model, data, 1).per_pair == pytest.approx(whole.per_pair, rel=0.05)
    model, data = planned(clips, tmp_path, backbone="test_resnet", image_size=8192, mask_ratio=0.999)
    with pytest.raises(UserError, match="pairs of 8192x8192 pixels at once need about"):
        plan.require_memory(plan.measure_memory(model, data, 1), data, 1, 8 * 2**30)


def test_measuring_changes_neither_the_model_nor_the_random_state(clips: Path, tmp_path: Path) -> None:
    model, data = planned(clips, tmp_path, backbone="test_resnet")
    before, state = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    plan.measure_memory(model, data, 1)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_as_few_micro_batches_as_fit(clips: Path, tmp_path: Path) -> None:
    _, data = planned(clips, tmp_path, global_batch_size=16)
    memory = plan.Memory(weights=10, per_pair=100, pair=0, workers=0)
    for free, count in ((2000, 1), (1000, 2), (500, 4), (250, 8), (130, 16)):
        assert plan.fewest_micro_batches(memory, data, 1, free) == count
    with pytest.raises(UserError, match="not even one pair at a time fits"):
        plan.fewest_micro_batches(memory, data, 1, 100)


def test_what_would_be_killed_is_refused_with_both_cures_and_nothing_is_written(clips, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda device: 10 * 2**20)
    with pytest.raises(UserError) as refused:
        videomac.pretrain(**options(clips, tmp_path / "run"))
    sentence = str(refused.value)
    assert "16 pairs of 64x64 pixels at once need about" in sentence and "--accumulate auto" in sentence
    assert (
        f"videomac pretrain --data {clips} --backbone test_convnext --out {tmp_path / 'run'} --recipe small" in sentence
    )
    assert not (tmp_path / "run").exists()


class Interrupt(Callback):
    """Presses Ctrl-C in a step."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if batch_idx == 6:  # the first half of step 4
            os.kill(os.getpid(), signal.SIGINT)


def test_micro_batches_are_settled_once_and_kept_on_resuming(
    clips, tmp_path, monkeypatch, capfd, with_callback
) -> None:
    out = tmp_path / "run"
    half = plan.measure_memory(*planned(clips, out), 1).step(8, 1)
    changed = {"accumulate": "auto", "steps": 6, "epochs": None}
    with monkeypatch.context() as little:
        little.setattr(plan, "free_bytes", lambda device: int(half / plan.SHARE) + 2**20)
        with_callback(Interrupt())
        with pytest.raises(KeyboardInterrupt, match="stopped at step 4 of 6, which is saved"):
            videomac.pretrain(**options(clips, out, **changed))
    said = capfd.readouterr()
    assert "6 steps of 16 pairs in 2 micro-batches of 8" in said.out
    assert "finishing this step, then saving; Ctrl-C again stops at once" in said.err
    assert read_config(out)["accumulate"] == 2
    with_callback(Callback())
    videomac.pretrain(**options(clips, out, **changed, resume=True))
    assert "in 2 micro-batches of 8" in capfd.readouterr().out
    assert [row["step"] for row in rows(out)] == list("123456")


def test_batch_norm_is_told_that_numbers_depend_on_micro_batches(clips, tmp_path, capsys) -> None:
    changed = {"accumulate": 2, "epochs": 1, "held_out": 0}
    videomac.pretrain(**options(clips, tmp_path / "a", backbone="test_resnet", **changed))
    assert "BatchNorm sees one micro-batch at a time" in capsys.readouterr().out
    videomac.pretrain(**options(clips, tmp_path / "b", **changed))
    said = capsys.readouterr().out
    assert "BatchNorm" not in said
    assert re.search(
        r"4 videos, \d+ pairs of 64x64 pixels: \d steps of 16 pairs in 2 micro-batches of 8, 1 epochs", said
    )
    assert re.search(r"about \d\.\d GiB of memory on each of 1 device\(s\), where \d+\.\d GiB are free", said)
