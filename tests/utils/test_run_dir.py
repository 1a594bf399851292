"""The out folder of a command."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from videomac.errors import UserError
from videomac.utils.file_lock import FileLock
from videomac.utils.run_dir import (
    LOCK,
    environment,
    hold,
    prepare_out_dir,
    read_rows,
    table,
    write_metrics,
    write_rows,
)

OWNED = ("metrics.json", "checkpoints", "*.png")


def fill(out: Path) -> None:
    (out / "checkpoints").mkdir(parents=True)
    for name in ("metrics.json", "checkpoints/last.ckpt", "a.png", "notes.txt"):
        (out / name).write_text("x")


def test_an_out_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    with pytest.raises(UserError, match=r"already holds a run \(a.png\).*--overwrite"):
        prepare_out_dir(tmp_path, OWNED, overwrite=False)
    assert len([*tmp_path.rglob("*")]) == 5


def test_only_what_such_a_run_makes_is_replaced(tmp_path: Path) -> None:
    fill(tmp_path)
    prepare_out_dir(tmp_path, OWNED, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    prepare_out_dir(tmp_path, OWNED, overwrite=False)


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    fill(tmp_path / "other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoints").symlink_to(tmp_path / "other" / "checkpoints")
    prepare_out_dir(tmp_path / "out", OWNED, overwrite=True)
    assert not [*(tmp_path / "out").iterdir()] and (tmp_path / "other" / "checkpoints" / "last.ckpt").is_file()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the out folder"):
        prepare_out_dir(tmp_path / "file" / "out", OWNED, overwrite=False)


def test_numbers_and_where_they_were_made_are_kept(tmp_path: Path) -> None:
    write_metrics(tmp_path, {"loss": 0.5, "steps": 3})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"loss": 0.5, "steps": 3}
    stored = json.loads((tmp_path / "environment.json").read_text())
    assert stored == environment() and stored["python"] == platform.python_version()
    assert platform.node() not in map(str, stored.values()), "nothing names the machine"


def test_rows_are_read_back_up_to_a_step_and_half_a_row_is_not(tmp_path: Path) -> None:
    write_rows(tmp_path / "metrics.csv", [{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("4")
    rows = read_rows(tmp_path / "metrics.csv", last_step=9)
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv", last_step=2)] == ["1", "2"]


def test_a_table_lines_up_and_shortens_floats() -> None:
    assert table([("loss", 0.123456), ("a longer name", 3)]) == "  loss           0.1235\n  a longer name  3"


def test_a_folder_is_held_by_one_command_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    script = "import sys\nfrom pathlib import Path\nfrom videomac.utils.run_dir import hold\n"
    script += "with hold(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.readline()\n"
    other = [sys.executable, "-c", script, str(out)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"another command is at work in .* \(pid {process.pid} on ") as refused:
            with hold(out):
                pass
        assert "\n" not in str(refused.value)
        process.kill()
    with hold(out), hold(out):  # the lock ended with its process; one process may hold a folder twice
        (out / ".last.ckpt.x1y2.partial").touch()
        (out / ".a.partial").mkdir()
        (out / ".a.partial" / "0.png").touch()
    with hold(out):
        assert [path.name for path in out.iterdir()] == [".lock"], "what a kill left is removed"
    assert [*out.iterdir()] == []


def test_a_folder_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with pytest.raises(UserError), hold(tmp_path / "a" / "b"):
        raise UserError("refused")
    assert [*tmp_path.iterdir()] == []
    with hold(tmp_path / "a"):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_does_not_hold_what_its_parent_held(tmp_path: Path) -> None:
    from multiprocessing import get_context

    with hold(tmp_path):
        child = get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        assert FileLock(tmp_path / LOCK).acquire()
    finally:
        child.kill()
        child.join()


def test_a_file_system_without_locks_is_told_once(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("videomac.utils.file_lock._lock", unknown)
    with hold(tmp_path):
        pass
    (record,) = caplog.records
    assert "has no locks" in record.getMessage()
