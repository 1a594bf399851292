from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from videomac.errors import UserError
from videomac.study.plan import Row, Study
from videomac.study.store import hold_table, read_stored, settle


def test_a_study_is_stored_once_and_read_back(study: Study, tmp_path: Path) -> None:
    settle(study, tmp_path / "out")
    before = (tmp_path / "out" / "config.yaml").read_bytes()
    settle(study, tmp_path / "out")
    assert (tmp_path / "out" / "config.yaml").read_bytes() == before
    assert read_stored(tmp_path / "out") == study


def test_a_changed_study_is_refused(study: Study, tmp_path: Path) -> None:
    settle(study, tmp_path)
    changed = Row("deep", {"decoder_depth": 4}, 68.2, "as good")
    cases = {
        "seeds": replace(study, seeds=(0, 1, 2)),
        "row 'deep'": replace(study, rows=(*study.rows[:2], changed)),
        "row 'new'": replace(study, rows=(*study.rows, Row("new", {}, None, None))),
        "rows": replace(study, rows=study.rows[:2]),
        "base": replace(study, base={**study.base, "steps": 5}),
        "davis": replace(study, stages=(2,)),
        "probe": replace(study, probe={"k": 3}),
    }
    for what, other in cases.items():
        with pytest.raises(UserError, match=f"begun with another {what}"):
            settle(other, tmp_path)


def test_a_folder_of_something_else_is_left_alone(study: Study, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("command: pretrain\n")
    with pytest.raises(UserError, match="made by `videomac pretrain`"):
        settle(study, tmp_path)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="already holds a run"):
        settle(study, tmp_path)


def test_what_a_killed_call_left_of_a_table_is_removed_and_runs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    left, busy = tmp_path / ".study.png.x.partial", tmp_path / "runs" / ".last.ckpt.x.partial"
    left.touch()
    busy.touch()
    with hold_table(tmp_path):
        assert not left.exists()
        assert busy.exists()
        with pytest.raises(UserError, match="another command writes the table"), hold_table(tmp_path):
            pass
    with hold_table(tmp_path):
        pass
