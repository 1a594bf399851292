from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.study.conftest import pretend
from videomac.study.plan import Study
from videomac.study.runs import runs_of


def test_every_row_has_one_seed_before_any_has_the_next(study: Study, tmp_path: Path) -> None:
    names = [run.row.name for run in runs_of(study, tmp_path)]
    assert names == [row.name for row in study.rows] * 2
    assert [run.seed for run in runs_of(study, tmp_path)] == [0, 0, 0, 1, 1, 1]


def test_of_a_run_is_missing_what_has_left_no_numbers(study: Study, tmp_path: Path) -> None:
    pretend(study, tmp_path, seeds=(0,))
    done, *_, other = runs_of(study, tmp_path)
    assert done.missing(study) == []
    assert done.missing(replace(study, probe={"k": 3})) == [done.probe]
    assert other.missing(study) == [other.pretraining, other.judgement(2), other.judgement(3)]
    (done.judgement(3) / "metrics.json").unlink()
    assert done.missing(study) == [done.judgement(3)]
