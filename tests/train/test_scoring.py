"""The score without labels while a run trains: it is that of `eval cycle`, and training does not notice it."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

import videomac
from tests.train.runs import assert_equal, command, options
from videomac import VideoMAC
from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.evaluate.config import EvalCycleConfig
from videomac.evaluate.cycle import extractor_of, lead, travel
from videomac.evaluate.cycle_footage import choose_clips, planted_clips
from videomac.evaluate.cycle_networks import initialisation_of
from videomac.models.checkpoint import load_backbone
from videomac.reporting.reading import read_part
from videomac.train import scoring
from videomac.train.callbacks import Checkpoints
from videomac.train.config import PretrainConfig
from videomac.train.scoring import CycleScore, Footage, load_footage
from videomac.utils.io import read_torch
from videomac.utils.video_writer import write_frames

SMALL = {"NUM_CLIPS": 4, "FRAMES": 3, "FRAME_GAP": 2, "SHORT_SIDE": 64, "STAGE": 1}


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for number in range(4):
        write_frames(folder / f"v{number}", moving_shapes(22, (64, 80), seed=50 + number)[0])
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, short and small clips."""
    for name, value in SMALL.items():
        monkeypatch.setattr(scoring, name, value)


@pytest.fixture(scope="module")
def scored(clips: Path, footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_run`, scored."""
    out = tmp_path_factory.mktemp("scored") / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(scoring, name, value)
        videomac.pretrain(**options(clips, out, gamma=0.5, keep_epochs=1, score_on=footage))
    return out


def rows(out: Path) -> list[dict[str, float]]:
    with (out / "cycle.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def scores_by_hand(footage: Path, network: Any) -> list[float]:
    """What `eval cycle` makes of a network on the same clips."""
    clips = choose_clips(footage, SMALL["NUM_CLIPS"], SMALL["FRAMES"], SMALL["FRAME_GAP"], cure="")
    extractor = extractor_of(network, SMALL["STAGE"], 8)
    return [travel(extractor, planted).score for _, planted in planted_clips(clips, SMALL["SHORT_SIDE"])]


def initial(run: Path, seed: int = 0) -> torch.nn.Module:
    """What `eval cycle` compares a run with."""
    return initialisation_of(str(run), load_backbone(run), seed)


def test_a_scored_run_is_the_same_run_to_the_last_bit(scored: Path, small_run: Path) -> None:
    assert (scored / "metrics.csv").read_bytes() == (small_run / "metrics.csv").read_bytes()
    states = [read_torch(out / "checkpoints" / "last.ckpt") for out in (scored, small_run)]
    for part in ("state_dict", "optimizer_states"):
        assert_equal(states[0][part], states[1][part], part)


def test_the_curve_is_that_of_eval_cycle_from_the_random_weights_on(scored: Path, footage: Path) -> None:
    table = rows(scored)
    assert [(row["epoch"], row["step"]) for row in table] == [(0, 0), (1, 5), (2, 10)]
    before = scores_by_hand(footage, initial(scored))
    assert table[0] == {"epoch": 0, "step": 0, **lead(before, before)} and table[0]["difference"] == 0
    for row in table[1:]:
        kept = scored / "checkpoints" / f"epoch-{int(row['epoch']):04d}.ckpt"
        after = scores_by_hand(footage, load_backbone(kept))
        assert row == {"epoch": row["epoch"], "step": row["step"], **lead(after, before)} and after != before
    with Image.open(scored / "cycle.png") as picture:
        assert min(picture.size) > 300


def test_the_last_score_is_in_the_metrics_in_tensorboard_and_on_the_page(scored: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last, metrics = rows(scored)[-1], json.loads((scored / "metrics.json").read_text())
    names = {"cycle_score": "score", "cycle_score_difference": "difference"}
    names |= {"cycle_score_difference_low": "low", "cycle_score_difference_high": "high"}
    assert {key: metrics[key] for key in names} == {key: last[name] for key, name in names.items()}
    events = EventAccumulator(str(scored / "tensorboard")).Reload()
    for key, name in names.items():
        found = [(event.step, event.value) for event in events.Scalars(key)]
        assert found == [(row["step"], pytest.approx(row[name])) for row in rows(scored)[1:]]
    part = read_part(scored, most_videos=0)
    assert "cycle" in [picture.name for picture in part.pictures]
    assert ("cycle score", f"{last['score']:.4g}") in part.metrics


def test_the_settings_are_those_of_eval_cycle_but_for_fewer_clips() -> None:
    other = EvalCycleConfig(Path("data"), "x", Path("out"))
    ours = (scoring.FRAMES, scoring.FRAME_GAP, scoring.SHORT_SIDE, scoring.STAGE, scoring.STRIDE)
    assert ours == (other.frames, other.frame_gap, other.short_side, other.stage, other.stride)
    assert 2 <= scoring.NUM_CLIPS < other.num_clips


def test_an_interrupted_run_leaves_the_same_curve(
    scored: Path, clips: Path, footage: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score of step 5 is written, and the run is lost before the checkpoint that would vouch for it."""
    out, save = tmp_path / "run", Checkpoints.save

    def lost(self: Checkpoints, trainer: Trainer, module: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("lost")
        save(self, trainer, module)

    same = options(clips, out, gamma=0.5, keep_epochs=1, score_on=footage, save_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", lost)
        with pytest.raises(RuntimeError, match="lost"):
            videomac.pretrain(**same)
    assert [row["step"] for row in rows(out)] == [0, 5]
    started: list[float] = []
    travelled = scoring.travel
    monkeypatch.setattr(scoring, "travel", lambda *given: started.append(len(rows(out))) or travelled(*given))
    moved = shutil.copytree(footage, tmp_path / "moved")
    videomac.pretrain(**{**same, "resume": True, "score_on": moved})
    assert (
        started == [1] * SMALL["NUM_CLIPS"] + [2] * SMALL["NUM_CLIPS"]
    )  # the row was dropped; no random weights again
    assert (out / "cycle.csv").read_bytes() == (scored / "cycle.csv").read_bytes()
    assert (out / "cycle.png").read_bytes() == (scored / "cycle.png").read_bytes()


class Preempted(Callback):
    """Ends a run after a step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 7:
            raise RuntimeError("preempted")


def test_the_score_may_be_left_out_of_a_run_that_goes_on(
    clips: Path,
    footage: Path,
    small: None,
    tmp_path: Path,
    with_callback: Any,
    monkeypatch: pytest.MonkeyPatch,
    scored: Path,
) -> None:
    out = tmp_path / "run"
    same = options(clips, out, gamma=0.5, keep_epochs=1, save_steps=1)
    with monkeypatch.context() as patch:
        with_callback(Preempted())
        with pytest.raises(RuntimeError, match="preempted"):
            videomac.pretrain(**same, score_on=footage)
        patch.undo()
    monkeypatch.undo()
    metrics = videomac.pretrain(**same, resume=True)
    assert not any("cycle" in key for key in metrics) and rows(out) == rows(scored)[:2]
    assert (out / "metrics.csv").read_bytes() == (scored / "metrics.csv").read_bytes()


def built(footage: Path, **changed: Any) -> tuple[VideoMAC, CycleScore]:
    torch.manual_seed(0)
    model = VideoMAC("test_resnet", decoder_width=16, mask_ratio=0.5, backbone_args={"drop_path_rate": 0.5}).train()
    config = PretrainConfig(**options(Path("data"), Path("out"), score_on=footage, **changed))
    return model, CycleScore(model, model, load_footage(config))


def module_of(out: Path) -> Any:
    """What a callback asks of the module."""
    data = SimpleNamespace(steps_per_epoch=5, ends_epoch=lambda step: step % 5 == 0)
    config = SimpleNamespace(out=out, init_from=None)
    return SimpleNamespace(device=torch.device("cpu"), data=data, config=config, add_numbers=lambda numbers: None)


def trainer_at(step: int, rank: int = 0) -> Any:
    return SimpleNamespace(global_step=step, is_global_zero=rank == 0, progress_bar_callback=None)


def test_scoring_changes_neither_the_model_nor_a_random_state(footage: Path, small: None, tmp_path: Path) -> None:
    model, score = built(footage)
    modes = {name: module.training for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert any("running_mean" in key for key in state)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    score.on_train_batch_start(trainer_at(0), module_of(tmp_path), None, 0)
    score.on_step(trainer_at(5), module_of(tmp_path))
    assert len(score.rows) == 2
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert_equal(dict(model.state_dict()), state, "state_dict")


def test_a_line_is_printed_for_every_epoch(
    footage: Path, small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, score = built(footage)
    score.on_train_batch_start(trainer_at(0), module_of(tmp_path), None, 0)
    for step in (3, 5):
        score.on_step(trainer_at(step), module_of(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["random weights", "epoch 1"]
    assert f"score {score.rows[1]['score']:.3f}, over random weights {score.rows[1]['difference']:+.3f} (" in lines[1]


def test_other_processes_score_nothing(footage: Path, small: None, tmp_path: Path) -> None:
    _, score = built(footage)
    score.on_train_batch_start(trainer_at(0, rank=1), module_of(tmp_path), None, 0)
    score.on_step(trainer_at(5, rank=1), module_of(tmp_path))
    assert not score.rows and not list(tmp_path.iterdir())


def test_on_other_clips_the_curve_begins_anew(
    footage: Path, small: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, score = built(footage)
    score.on_train_batch_start(trainer_at(0), module_of(tmp_path), None, 0)
    score.on_step(trainer_at(5), module_of(tmp_path))
    state = score.state_dict()
    fewer = Footage(score.footage.names[1:], score.footage.planted[1:])
    other = CycleScore(model, model, fewer)
    other.load_state_dict(state)
    assert "the curve of the score begins anew" in caplog.text and other.state_dict() == {}
    other.on_train_batch_start(trainer_at(5), module_of(tmp_path), None, 0)
    other.on_step(trainer_at(10), module_of(tmp_path))
    assert [(row["epoch"], row["step"]) for row in rows(tmp_path)] == [(0, 0), (2, 10)]
    without = CycleScore(model, model, None)
    without.load_state_dict(state)
    assert without.state_dict() == state


def test_weights_that_a_run_starts_from_are_scored_beside_random_ones(
    clips: Path, footage: Path, small: None, small_run: Path, tmp_path: Path
) -> None:
    still = {"epochs": 1, "global_batch_size": 64, "base_lr": 0.0, "held_out": 0}
    videomac.pretrain(**options(clips, tmp_path, **still, score_on=footage, init_from=small_run / "backbone", seed=3))
    random_, start, after = rows(tmp_path)
    assert [(row["epoch"], row["step"]) for row in (random_, start, after)] == [(0, 0), (0, 0), (1, 1)]
    before = scores_by_hand(footage, initial(small_run, seed=3))
    assert random_["score"] == pytest.approx(np.mean(before)) and random_["difference"] == 0
    assert start["difference"] != 0 and {**start, "epoch": 1, "step": 1} == after
    assert start == {"epoch": 0, "step": 0, **lead(scores_by_hand(footage, load_backbone(small_run)), before)}


def test_a_run_that_is_measured_in_steps_has_ends_too(clips: Path, footage: Path, small: None, tmp_path: Path) -> None:
    videomac.pretrain(**options(clips, tmp_path, epochs=None, steps=7, held_out=0, score_on=footage))
    assert [(row["epoch"], row["step"]) for row in rows(tmp_path)] == [(0, 0), (1, 5), (2, 7)]


def test_bad_footage_is_refused_before_the_old_run_is_deleted_which_overwriting_then_does(
    clips: Path, footage: Path, tmp_path: Path
) -> None:
    out, one, empty = tmp_path / "run", tmp_path / "one", tmp_path / "empty"
    (out / "checkpoints").mkdir(parents=True)
    old = [out / "checkpoints" / "last.ckpt", out / "metrics.json", out / "cycle.csv", out / "cycle.png"]
    for path in old:
        path.touch()
    write_frames(one / "v", moving_shapes(22, (64, 80))[0])  # exactly 8 frames 3 apart
    write_frames(tmp_path / "short" / "v", moving_shapes(21, (64, 80))[0])
    write_frames(tmp_path / "short" / "w", moving_shapes(9, (64, 80))[0])
    empty.mkdir()
    quick = {"epochs": 1, "global_batch_size": 64, "held_out": 0, "overwrite": True}
    for folder, sentence in (
        (tmp_path / "nowhere", "no such folder or video file: .*nowhere"),
        (empty, "no video in .*empty"),
        (one, "has room for one clip"),
        (tmp_path / "short", "long enough for 8 frames 3 apart: .* 21 frames; name longer videos in --score_on"),
        ("s3://bucket/videos", "score_on is s3://bucket/videos, and URLs are not read"),
    ):
        with pytest.raises(UserError, match=sentence):
            videomac.pretrain(**options(clips, out, **quick, score_on=folder))
        assert all(path.exists() for path in old), folder
    videomac.pretrain(**options(clips, out, **quick))
    assert [path.name for path in old if path.exists()] == ["last.ckpt", "metrics.json"]


def test_footage_that_cannot_be_read_is_refused(tmp_path: Path, small: None, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / name, moving_shapes(9, (64, 80))[0])
        for frame in sorted((tmp_path / name).iterdir())[1:]:
            frame.write_bytes(frame.read_bytes()[:200])
    with pytest.raises(UserError, match=r"no clip of .* can be read: the warnings above say why"):
        built(tmp_path)
    assert "left out a" in caplog.text


def test_training_footage_is_warned_of(clips: Path, small: None, caplog: pytest.LogCaptureFixture) -> None:
    def warned(data: Path, score_on: Path) -> bool:
        caplog.clear()
        load_footage(PretrainConfig(data, "x", "out", score_on=score_on))
        return "is footage that the run trains on, which flatters it" in caplog.text

    with caplog.at_level(logging.WARNING):
        assert warned(clips, clips) and warned(clips.parent, clips) and warned(clips / "clip3", clips)
        assert not warned(clips.parent / "clips-b", clips)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_two_processes_score_once_and_wait_for_it(clips: Path, footage: Path, tmp_path: Path) -> None:
    changed = {"global_batch_size": 32, "held_out": 0}
    scored, plain = tmp_path / "scored", tmp_path / "plain"
    for out, more in ((scored, {"score_on": footage}), (plain, {})):
        words = command(clips, out, devices=2, **changed, **more)
        printed = subprocess.run(words, check=True, capture_output=True, text=True, timeout=1800).stdout
        assert printed.count("epoch 1: score") == bool(more)
    assert (scored / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()
    assert [row["epoch"] for row in rows(scored)] == [0, 1, 2]
