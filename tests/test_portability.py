"""What Windows and macOS lack, or do otherwise, taken away here: the run must go on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import videomac
from tests.train.runs import options
from videomac import cli
from videomac.data.loader import leave_signals_to_the_main_process
from videomac.utils.device import usable_cores

POSIX_ONLY = ("fork", "killpg", "sched_getaffinity", "getpgid", "setsid", "geteuid", "uname", "link")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without links, process groups, affinities and alarms."""
    for name in POSIX_ONLY:
        monkeypatch.delattr(os, name, raising=False)
    for name in ("alarm", "setitimer", "SIGALRM"):
        monkeypatch.delattr(signal, name, raising=False)


@pytest.mark.usefixtures("elsewhere")
def test_a_run_needs_nothing_that_only_posix_has(clips: Path, tmp_path: Path) -> None:
    videomac.pretrain(**options(clips, tmp_path, epochs=1, keep_epochs=1))
    assert (tmp_path / "checkpoints" / "epoch-0001.ckpt").is_file(), "copied, where there are no links"


@pytest.mark.usefixtures("elsewhere")
def test_cores_are_counted_and_workers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == os.cpu_count()
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    leave_signals_to_the_main_process(0)
    assert handlers == {signal.SIGINT: signal.SIG_IGN}, "without an alarm SIGTERM ends a worker, as it always did"


SPAWNED = """
import multiprocessing, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from videomac import cli
    cli.main(sys.argv[1:])
"""


def test_workers_can_be_spawned(clips: Path, tmp_path: Path) -> None:
    """Windows and macOS start them from nothing, so that everything they need must be picklable."""
    (tmp_path / "run.py").write_text(SPAWNED)
    values = options(clips, tmp_path / "out", epochs=1, workers=1, cache=0.1)
    del values["trainer"]
    words = [f"--{key}={value}" for key, value in values.items()]
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), "pretrain", *words, "--trainer.accelerator=cpu"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_a_letter_that_the_code_page_lacks_does_not_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    print("Küche 中文 ≠", flush=True)
    assert written.getvalue().decode("cp1252").splitlines()[-1] == r"Küche \u4e2d\u6587 \u2260"


def test_files_are_read_and_written_as_utf8_whatever_the_systems_code_page_is(clips: Path, tmp_path: Path) -> None:
    """Python warns of every text file whose encoding is left to the system."""
    script = "import sys, warnings\nfrom videomac import cli\n"
    script += "warnings.filterwarnings('error', category=EncodingWarning, module='videomac')\ncli.main(sys.argv[1:])\n"
    values = options(clips, tmp_path / "out", epochs=1)
    del values["trainer"]
    words = [f"--{key}={value}" for key, value in values.items()]
    for arguments in (["pretrain", *words, "--trainer.accelerator=cpu"], ["report", str(tmp_path / "out")]):
        command = [sys.executable, "-X", "warn_default_encoding", "-c", script, *arguments]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
