"""What a machine does to a run ends it with one sentence and status 2, keeps what was finished, and hangs nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import videomac
from tests.train import runs
from videomac.errors import UserError
from videomac.train.callbacks import MetricsLogger
from videomac.utils.io import read_torch

HANG = 120
ENDED = "run the same command with --resume"


@pytest.mark.parametrize("gone", ["metrics.csv", "."])
def test_what_is_deleted_in_mid_run_ends_it_with_a_sentence(clips: Path, tmp_path: Path, monkeypatch: Any, gone: str):
    out, write = tmp_path / "run", MetricsLogger.write

    def deleting(self: MetricsLogger, trainer: Any, module: Any, *, wait: bool) -> None:
        if trainer.global_step == 4:
            shutil.rmtree(out) if gone == "." else (out / gone).unlink()
        write(self, trainer, module, wait=wait)

    monkeypatch.setattr(MetricsLogger, "write", deleting)
    with pytest.raises(UserError, match=f"is gone: it was moved or deleted.*{ENDED}") as ended:
        videomac.pretrain(**runs.options(clips, out, save_steps=2))
    assert "\n" not in str(ended.value)
    if gone == "metrics.csv":
        assert read_torch(out / "checkpoints" / "last.ckpt")["global_step"] == 2
        monkeypatch.undo()
        metrics = videomac.pretrain(**runs.options(clips, out, save_steps=2, resume=True))
        assert metrics["steps"] == 10 and [row["step"] for row in runs.rows(out)] == [str(n) for n in range(3, 11)]


def limited(prefix: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that sets limits first."""
    shell = ["unshare", "-m", "bash"] if "mount" in prefix else ["bash"]
    return subprocess.run(
        [*shell, "-c", f"{prefix}; exec {shlex.join(words)}"], capture_output=True, text=True, timeout=HANG
    )


def may_mount(folder: Path) -> bool:
    """Whether this process may mount, as root may."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return limited(f"mount -t tmpfs -o size=1m tmpfs {folder}", ["true"]).returncode == 0


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize(
    ("prefix", "sentence"),
    [
        ("ulimit -n 24", "ulimit -n"),
        ("trap '' XFSZ; ulimit -f 300", "ulimit -f"),
        ("ulimit -v 2500000", "ulimit -v"),
        ("mount -t tmpfs -o size=1m tmpfs /dev/shm", "/dev/shm"),
        ("mount -t tmpfs -o size=1m tmpfs {folder}", "is full"),
        ("mount -t tmpfs -o ro tmpfs {folder}", "cannot be written"),
    ],
)
def test_limits_and_full_disks_are_a_sentence(clips: Path, tmp_path: Path, prefix: str, sentence: str) -> None:
    if "mount" in prefix and not may_mount(tmp_path):
        pytest.skip("mounting is refused here")
    words = runs.command(clips, tmp_path / "run", workers=2, save_steps=1)
    ended = limited(prefix.format(folder=tmp_path), words)
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("videomac: error: ") and sentence in last, ended.stderr


@pytest.mark.faults
def test_two_commands_on_one_folder(clips: Path, tmp_path: Path) -> None:
    words = runs.command(clips, tmp_path / "run", epochs=4000)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and any(line.startswith("step 1/") for line in first.stdout)
        for more in ("--resume", "--overwrite"):
            second = subprocess.run([*words, more], capture_output=True, text=True, timeout=HANG)
            assert second.returncode == 2 and "another command is at work" in second.stderr, second.stderr
        first.kill()
