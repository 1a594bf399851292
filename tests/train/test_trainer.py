"""An interrupted and resumed run equals an uninterrupted one to the last bit, however it was interrupted."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import torch

import videomac
from tests.train import runs
from tests.train.runs import assert_equal, run_until
from videomac.errors import UserError
from videomac.train.pretrain import Pretraining
from videomac.utils.io import read_torch


def command(clips: Path, out: Path) -> list[str]:
    """BatchNorm buffers, drop path and accumulation, two data workers, 12 steps in two epochs."""
    changed = {"backbone": "test_resnet", "global_batch_size": 14, "accumulate": 2, "drop_path": 0.3}
    return runs.command(clips, out, **changed, workers=2, held_out=2)


@pytest.fixture(scope="module")
def uninterrupted(clips, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    subprocess.run(command(clips, out), check=True, stdout=subprocess.DEVNULL)
    return out


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_run_killed_in_the_middle_of_an_epoch_resumes_to_the_last_bit(uninterrupted, clips, tmp_path):
    out = tmp_path / "run"
    status, _ = run_until([*command(clips, out), "--save_steps=2"], "step 4/12", signal.SIGKILL)
    assert status == -signal.SIGKILL
    done = read_torch(out / "checkpoints" / "last.ckpt")["global_step"]
    assert done < 12 and done % 6, "the run was to be killed within an epoch"
    subprocess.run([*command(clips, out), "--resume"], check=True, stdout=subprocess.DEVNULL)
    assert_equal_runs(uninterrupted, out)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop_saves_first(uninterrupted, clips, tmp_path, number):
    out = tmp_path / "run"
    status, errors = run_until(command(clips, out), "step 2/12", number)
    step = read_torch(out / "checkpoints" / "last.ckpt")["global_step"]
    assert status == 130
    assert f"stopped at step {step} of 12, which is saved" in errors and "--resume" in errors
    assert "Traceback" not in errors
    if number == signal.SIGTERM:
        subprocess.run([*command(clips, out), "--resume", "--workers=0"], check=True, stdout=subprocess.DEVNULL)
        assert_equal_runs(uninterrupted, out)


def assert_equal_runs(a: Path, b: Path) -> None:
    """Equal bits: curves, both networks with their buffers, optimizer, exported weights."""
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()
    assert (a / "backbone" / "model.safetensors").read_bytes() == (b / "backbone" / "model.safetensors").read_bytes()
    first, second = (read_torch(out / "checkpoints" / "last.ckpt") for out in (a, b))
    assert any("running_var" in key for key in first["state_dict"])
    assert first["optimizer_states"][0]["state"]
    for part in ("global_step", "state_dict", "optimizer_states", "videomac", "data"):
        assert_equal(first[part], second[part], part)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_two_processes_stop_at_the_same_step_though_one_was_told(clips, tmp_path):
    """The wish of one process reaches the other with the numbers of a step; both save, and the run can go on."""
    small = {"backbone": "test_resnet", "global_batch_size": 14, "held_out": 0, "devices": 2}
    whole, out = tmp_path / "whole", tmp_path / "run"
    subprocess.run(runs.command(clips, whole, **small), check=True, stdout=subprocess.DEVNULL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(runs.command(clips, out, **small), start_new_session=True, **pipes) as run:
        assert any(line.startswith("step 2/12") for line in iter(run.stdout.readline, ""))
        run.send_signal(signal.SIGINT)  # the first process alone, as its launcher would be told
        _, errors = run.communicate(timeout=120)
    step = read_torch(out / "checkpoints" / "last.ckpt")["global_step"]
    assert run.returncode == 130 and 2 < step < 12
    assert f"stopped at step {step} of 12, which is saved" in errors
    subprocess.run([*runs.command(clips, out, **small), "--resume"], check=True, stdout=subprocess.DEVNULL)
    assert_equal_runs(whole, out)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_no_data_process_outlives_a_killed_run(clips, tmp_path):
    """The main process alone is killed, as the kernel does when memory runs out."""
    arguments = command(clips, tmp_path / "run")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        assert any(line.startswith("step 1/12") for line in iter(run.stdout.readline, ""))
        children = psutil.Process(run.pid).children(recursive=True)
        assert len(children) >= 2
        run.kill()
        run.wait()
        _, alive = psutil.wait_procs(children, timeout=5)
        for child in alive:
            child.kill()
    assert not alive


def test_a_full_device_is_one_sentence(clips, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Pretraining, "training_step", full)
    with pytest.raises(UserError, match=r"memory is full, with micro-batches of 8: add --accumulate auto or a larger"):
        videomac.pretrain(**runs.options(clips, tmp_path / "run", accumulate=2))
