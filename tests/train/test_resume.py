"""One command that may be repeated anywhere: it starts, goes on, or has nothing to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from lightning.pytorch import Callback

import videomac
from tests.data.prepared_clips import write_prepared
from tests.train.runs import assert_equal, command, options, rows, run_until
from videomac.data import prepared
from videomac.errors import UserError
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.pretrain import build_model
from videomac.utils.device import torchrun_shape
from videomac.utils.io import read_torch
from videomac.utils.parsing import parse


class Preempted(Callback):
    """Ends a run after a step, as a lost machine would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("preempted")


@pytest.fixture(scope="module")
def prepared_clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(folder, (40, 24, 41, 36), (72, 96))
    return folder


def test_auto_starts_goes_on_and_is_content_in_the_end(
    prepared_clips, tmp_path, with_callback, monkeypatch, capsys
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    videomac.pretrain(**options(prepared_clips, whole))
    again = options(prepared_clips, parts, resume="auto", save_steps=1)
    with monkeypatch.context() as patch:
        with_callback(Preempted(4))
        with pytest.raises(RuntimeError, match="preempted"):
            videomac.pretrain(**again)
        patch.undo()
    monkeypatch.undo()
    metrics = videomac.pretrain(**again)
    assert (whole / "metrics.csv").read_bytes() == (parts / "metrics.csv").read_bytes()
    states = [read_torch(out / "checkpoints" / "last.ckpt") for out in (whole, parts)]
    assert_equal(states[0]["state_dict"], states[1]["state_dict"], "state_dict")
    assert_equal(states[0]["optimizer_states"], states[1]["optimizer_states"], "optimizer")

    before = {path: path.stat().st_mtime_ns for path in parts.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert videomac.pretrain(**again) == json.loads((parts / "metrics.json").read_text())
    assert videomac.pretrain(**{**again, "devices": 3})["loss"] == metrics["loss"]
    assert capsys.readouterr().out == f"the run in {parts} is finished: nothing to do\n" * 2
    assert {path: path.stat().st_mtime_ns for path in parts.rglob("*") if path.is_file()} == before
    with pytest.raises(UserError, match=r"gamma differ from its config\.yaml"):
        videomac.pretrain(**{**again, "gamma": 0.25})
    (parts / "losses.png").unlink()  # not all of it is there
    videomac.pretrain(**again)
    assert "making what is missing: losses.png" in capsys.readouterr().out


def test_auto_refuses_a_folder_of_something_else(prepared_clips, tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("of another command")
    with pytest.raises(UserError, match="already holds a run"):
        videomac.pretrain(**options(prepared_clips, tmp_path, resume="auto"))


@pytest.mark.parametrize(
    ("words", "value"),
    [([], False), (["--resume"], True), (["--resume", "true"], True), (["--resume=auto"], "auto")],
)
def test_resume_is_a_switch_that_knows_auto(words: list[str], value: bool | str) -> None:
    assert parse("pretrain", PretrainConfig, ["--data=a", "--backbone=b", "--out=c", *words]).resume == value


def test_resume_knows_nothing_else() -> None:
    with pytest.raises(UserError, match="resume must be true or false or one of auto, but is 'perhaps'"):
        parse("pretrain", PretrainConfig, ["--data=a", "--backbone=b", "--out=c", "--resume", "perhaps"])


def test_a_prepared_folder_is_not_looked_into_at_the_start(prepared_clips, tmp_path, monkeypatch) -> None:
    config = PretrainConfig(**options(prepared_clips, tmp_path / "run"))
    model = build_model(config)
    monkeypatch.setattr(prepared, "opened", lambda path: pytest.fail(f"{path} was opened"))
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path=".": pytest.fail(f"{path} was listed") if path else listed(path))
    data = PretrainingData(config, model)
    assert (data.num_videos, data.num_skipped, len(data.held_out)) == (4, 0, 3)
    trained = 40 + 24 + 41 + 36 - sum(len(excerpt) for excerpt in data.held_out)
    assert data.total_steps == 2 * ((trained - 4) // 16)
    next(iter(data._whole_run(3, 0, 1)))


@pytest.mark.parametrize(("processes", "local", "shape"), [("8", "8", (8, 1)), ("8", "4", (4, 2)), (None, None, None)])
def test_devices_and_machines_are_torchruns(processes, local, shape, monkeypatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": processes, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": local}.items():
        monkeypatch.delenv(key, raising=False)
        if value is not None:
            monkeypatch.setenv(key, value)
    assert torchrun_shape() == shape


def test_machines_of_different_sizes_are_one_sentence(monkeypatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "7", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(UserError, match="7 processes in all and 4 on this machine"):
        torchrun_shape()


@pytest.mark.slow
def test_one_two_and_three_processes_in_turn_are_one(prepared_clips, tmp_path) -> None:
    """The batch of 13 is shared as 7 and 6, and as 5, 4 and 4; the second part is started by torchrun."""
    long = {"global_batch_size": 13, "precision": "64-true", "epochs": 4, "held_out": 0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    videomac.pretrain(**options(prepared_clips, whole, **long))
    again = {**long, "resume": "auto"}
    # Every second step has its line.
    status, errors = run_until(command(prepared_clips, parts, **again), "step 4/", signal.SIGTERM)
    assert status == 130, errors
    python, _, _, *words = command(prepared_clips, parts, **again)
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "videomac"]
    steps = [len(rows(parts))]
    _, errors = run_until([*torchrun, *words], f"step {steps[0] // 2 * 2 + 4}/", signal.SIGTERM)
    steps.append(len(rows(parts)))
    assert 4 <= steps[0] < steps[1] < len(rows(whole)), errors
    subprocess.run(command(prepared_clips, parts, devices=3, **again), check=True, stdout=subprocess.DEVNULL)
    found, expected = rows(parts), rows(whole)
    assert len(found) == len(expected) == 4 * (137 // 13)
    for one, two in zip(found, expected, strict=True):
        for key in ("loss", "online_loss", "target_loss", "consistency_loss"):
            assert float(one[key]) == pytest.approx(float(two[key]), rel=1e-6), (one["step"], key)
