from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.study.conftest import pretend
from videomac.errors import UserError
from videomac.study.plan import Study
from videomac.study.runs import runs_of
from videomac.study.table import lines_of, verdicts, write_table


def test_the_table_holds_every_row_beside_the_first(study: Study, tmp_path: Path) -> None:
    pretend(study, tmp_path)
    lines = lines_of(study, tmp_path)
    text = write_table(study, lines, tmp_path)
    assert text == (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()[4:7]
    }
    assert rows["first"][:3] == ["68.4", "50.5 ± 0.7", ""]
    assert rows["without $loss$"][1:4] == ["44.5 ± 0.7", "-6.0 (-6.0 to -6.0)", "worse: seen"]
    assert rows["deep"][1:4] == ["51.0 ± 0.7", "+0.5 (+0.5 to +0.5)", "as good: seen"]
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"][1]["cells"][1]["scores"] == pytest.approx([34, 35])
    with (tmp_path / "runs.csv").open(newline="") as file:
        singles = list(csv.DictReader(file))
    assert len(singles) == 3 * 2 * 2
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["", "", "seen", "seen", "seen", "seen"]


def test_a_table_of_what_is_there_compares_the_seeds_that_both_rows_have(study: Study, tmp_path: Path) -> None:
    pretend(study, tmp_path, seeds=(1,))
    pretend_one = next(run for run in runs_of(study, tmp_path) if run.seed == 0 and run.row.name == "deep")
    from tests.study.conftest import judge

    judge(pretend_one.judgement(2), {"dog_1": 1.0, "dog_2": 1.0, "camel_1": 1.0})
    first, loss, deep = lines_of(study, tmp_path)
    assert first.cells[0].seeds == (1,)
    assert loss.cells[0].verdict == "seen"
    assert deep.cells[0].seeds == (0, 1)
    assert deep.cells[0].gained is not None
    assert deep.cells[0].gained.mean == pytest.approx(0.5)
    assert "missing" in write_table(study, [first, loss, deep], tmp_path)


def test_a_study_of_ones_own_has_no_columns_for_the_paper(study: Study, tmp_path: Path) -> None:
    own = replace(study, rows=tuple(replace(row, paper=None, expect=None) for row in study.rows))
    pretend(own, tmp_path)
    text = write_table(own, lines_of(own, tmp_path), tmp_path)
    assert "paper" not in text
    assert text.splitlines()[2] == "|  | J&F, stage 2 | difference | J&F, stage 3 | difference |"
    assert text.splitlines()[4].startswith("| first | 50.5 ± 0.7 |  |")
    assert len({line.count("|") for line in text.splitlines()[2:7]}) == 1


def test_a_study_without_any_judged_run_has_an_empty_table(study: Study, tmp_path: Path) -> None:
    lines = lines_of(study, tmp_path)
    assert all(not cell.scores and cell.gained is None and cell.verdict == "" for line in lines for cell in line.cells)


def test_damaged_numbers_are_named(study: Study, tmp_path: Path) -> None:
    pretend(study, tmp_path)
    damaged = next(runs_of(study, tmp_path)).judgement(2) / "metrics.csv"
    damaged.write_text("Sequence,J-Mean\ndog_1,0.5\n")
    with pytest.raises(UserError, match=r"damaged|cannot be read") as caught:
        lines_of(study, tmp_path)
    assert str(damaged) in str(caught.value)


def test_the_first_stage_counts_for_what_is_said_of_the_claims(study: Study, tmp_path: Path) -> None:
    pretend(study, tmp_path)
    first, loss, deep = lines_of(study, tmp_path)
    unsure = replace(loss, cells=(replace(loss.cells[0], verdict="undecided"), *loss.cells[1:]))
    assert verdicts([first, unsure, deep]) == {"seen": 1, "not seen": 0, "undecided": 1}
