from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.test_options import VALUES
from videomac.errors import UserError
from videomac.models.masking import MaskSampler
from videomac.study.plan import as_study, read_study

CONFIGS = Path(__file__).parents[2] / "configs" / "studies"
TABLES = ["3a", "3b", "3c", "3d", "4b", "4c", "4d", "4e", "4f"]


def plain(**changes: Any) -> dict[str, Any]:
    return {
        "title": "A table",
        "base": {"backbone": "convnextv2_atto", "steps": 4},
        "rows": [{"name": "first", "paper": 68.4}, {"name": "other", "options": {"gamma": 0.0}, "paper": 60.6}],
        "seeds": [0, 1],
        "davis": {"stages": [2, 3], "size": "short240"},
        **changes,
    }


def refused(values: Any, match: str) -> None:
    with pytest.raises(UserError, match=match) as caught:
        as_study(values, Path("study.yaml"))
    assert str(caught.value).startswith("study.yaml")


def test_a_study_is_a_base_rows_seeds_and_a_judgement() -> None:
    study = as_study(plain(base={"backbone": "convnextv2_atto", "steps": 4, "gamma": 0.5}), Path("study.yaml"))
    assert [row.name for row in study.rows] == ["first", "other"]
    assert [row.expect for row in study.rows] == [None, "worse"]
    assert study.pretraining(study.rows[0], 0, Path("clips"), Path("out")).gamma == 0.5
    pretraining = study.pretraining(study.rows[1], 1, Path("clips"), Path("out"))
    assert (pretraining.gamma, pretraining.steps, pretraining.seed, pretraining.resume) == (0.0, 4, 1, "auto")
    judged = study.judgement(3, "weights", Path("DAVIS"), Path("out"), sequences=["dog"])
    assert (judged.stage, judged.size, judged.videos, judged.sequences) == (3, "short240", False, ["dog"])


def test_what_a_study_says_reads_back_as_itself(tmp_path: Path) -> None:
    study = as_study(plain(probe={"k": 3}), Path("study.yaml"))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(study.as_plain()))
    assert read_study(tmp_path / "again.yaml") == study


def test_what_the_paper_says_follows_from_its_numbers_unless_a_row_says_it() -> None:
    rows = [{"name": "a", "paper": 60}, {"name": "b", "paper": 61}, {"name": "c", "paper": 59, "expect": "as good"}]
    rows += [{"name": "d", "paper": 60}, {"name": "e"}, {"name": "f", "expect": "worse"}]
    study = as_study(plain(rows=rows), Path("study.yaml"))
    assert [row.expect for row in study.rows] == [None, "better", "as good", None, None, "worse"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rows": [{"name": "a"}]}, "at least two"),
        ({"rows": [{"name": "a"}, {"name": "A"}]}, "two rows have the name 'a'"),
        ({"rows": [{"name": "a"}, {"name": "../b"}]}, r"'../b', which is not a plain name"),
        ({"rows": [{"name": "a"}, {"name": ".."}]}, "not a plain name"),
        ({"rows": [{"name": "a"}, {"options": {}}]}, "row 2 needs a name"),
        ({"rows": [{"name": "a"}, {"name": 3}]}, "row 2 needs a name"),
        (
            {"rows": [{"name": "a"}, {"name": "b", "options": {"gama": 0}}]},
            "row 'b' has an unknown option 'gama'.*gamma",
        ),
        ({"rows": [{"name": "a"}, {"name": "b", "option": {}}]}, "unknown key 'option'.*options"),
        ({"rows": [{"name": "a"}, {"name": "b", "options": {"mask_ratio": 2.0}}]}, "row 'b' cannot be run: mask_ratio"),
        (
            {"rows": [{"name": "a"}, {"name": "b", "options": {"gamma": "high"}}]},
            "row 'b' cannot be run: gamma must be",
        ),
        ({"rows": [{"name": "a"}, {"name": "b", "options": {"seed": 1}}]}, "row 'b' may not give seed"),
        ({"rows": [{"name": "a"}, {"name": "b", "paper": "high"}]}, "paper of row 'b' must be J&F in percent"),
        ({"rows": [{"name": "a"}, {"name": "b", "expect": "equal"}]}, "expect of row 'b' must be one of"),
        ({"rows": [{"name": "a", "expect": "worse"}, {"name": "b"}]}, "row 'a' is the first"),
        ({"rows": {"a": {}}}, "rows must be a list"),
        ({"base": {"backbone": "x", "steps": 4, "out": "there"}}, "base may not give out"),
        ({"base": {"steps": 4}}, "row 'first' cannot be run: .*backbone"),
        ({"base": ["backbone"]}, "base must hold lines"),
        ({"seeds": []}, "seeds must be different whole numbers"),
        ({"seeds": [1, 1]}, "seeds must be different whole numbers"),
        ({"seeds": [0.5]}, "seeds must be different whole numbers"),
        ({"davis": {"stages": [0]}}, "stages of davis must be"),
        ({"davis": {"stage": 2}}, "davis may not give stage"),
        ({"davis": {"radus": 2}}, "unknown option 'radus'.*radius"),
        ({"davis": {"radius": -2}}, "cannot be judged: radius must be at least 0"),
        ({"probe": {"k": 0}}, "cannot be judged: k must be at least 1"),
        ({"title": 3}, "title must be text"),
        ({"command": "pretrain"}, "was written by `videomac pretrain`"),
        ({"colour": 3}, "a study has an unknown key 'colour'"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(changes: dict[str, Any], match: str) -> None:
    refused(plain(**changes), match)


@pytest.mark.parametrize("values", [None, [], "text", {1: 2}])
def test_what_is_no_study_is_refused(values: Any) -> None:
    refused(values, "a study must hold lines")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("rows: [")
    with pytest.raises(UserError, match=r"study.yaml is not valid YAML"):
        read_study(tmp_path / "study.yaml")
    with pytest.raises(UserError, match=r"missing\.yaml"):
        read_study(tmp_path / "missing.yaml")


def test_whatever_stands_in_a_study_it_is_read_or_refused() -> None:
    draw, read = random.Random(0), 0
    for _ in range(600):
        values = copy.deepcopy(plain(probe={"k": 3}))
        at: Any = values
        while True:  # walk to a random place and put something else there
            key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], dict | list) or not at[key] or draw.random() < 0.3:
                break
            at = at[key]
        at[key] = copy.deepcopy(draw.choice(VALUES))
        try:
            as_study(values, Path("study.yaml"))
            read += 1
        except UserError as error:
            assert str(error).startswith("study.yaml")
    assert 5 < read < 400


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_study_of_ours_can_be_run(path: Path) -> None:
    study = read_study(path)
    assert len(study.seeds) == 3
    for row in study.rows:
        options = study.pretraining(row, 0, Path("clips"), Path("out"))
        (height, width), patch = options.size, options.patch_size or 32
        assert height % patch == width % patch == 0
        MaskSampler((height // patch, width // patch), options.mask_ratio, options.symmetric)


def test_there_is_a_study_for_each_table_and_its_twin_differs_in_scale_alone() -> None:
    of_scale = {"backbone", "decoder_width"}
    for table in TABLES:
        (large,) = CONFIGS.glob(f"table{table}_*.yaml")
        paper, small = read_study(large), read_study(CONFIGS / "small" / large.name)
        assert [row.paper for row in paper.rows] == [row.paper for row in small.rows]
        assert [row.expect for row in paper.rows] == [row.expect for row in small.rows]
        for ours, twin in zip(paper.rows, small.rows, strict=True):
            assert ours.options.keys() == twin.options.keys()
            for key in ours.options.keys() - of_scale:
                assert ours.options[key] == twin.options[key]
