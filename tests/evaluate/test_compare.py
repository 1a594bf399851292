"""The comparison of evaluations."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import compare, synthetic
from videomac.evaluate.config import CompareConfig


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two evaluations on DAVIS by one protocol, one by another, and one on JHMDB."""
    root = tmp_path_factory.mktemp("compare")
    scenes = {"a": synthetic.scene(4, (48, 64), num_objects=1)}
    davis = synthetic.write_davis(root / "davis", scenes)
    settings: dict[str, Any] = {"videos": False, "stride": 4, "topk": 2}
    for name, protocol, stride in (("first", "crw", 4), ("second", "crw", 8), ("other", "dino", 4)):
        chosen = {**settings, "stride": stride, "protocol": protocol, "size": "native"}
        evaluate.davis("raw-pixels", data=davis, out=root / name, **chosen)
    jhmdb = synthetic.write_jhmdb(root / "jhmdb", {"run/a": scenes["a"]})
    evaluate.jhmdb("raw-pixels", data=jhmdb, out=root / "joints", size="native", **settings)
    return {name: root / name for name in ("first", "second", "other", "joints")}


def test_the_table_has_our_rows_and_the_papers(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = compare.run(CompareConfig(runs=[runs["first"], runs["second"]], out=tmp_path / "out"))
    assert [row["features"] for row in rows[:2]] == ["pixels, stride 4", "pixels, stride 8"]
    assert all(row["protocol"] == "crw*" for row in rows[:2])
    best = next(row for row in rows if row["backbone"] == "VideoMAC, ConvNeXt V2-S")
    assert (best["J&F-Mean"], best["J-Mean"], best["F-Mean"]) == ("68.4", "65.3", "71.4") and "mIoU" not in best
    table = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines()))
    assert [row["backbone"] for row in table] == [row["backbone"] for row in rows] and len(table) == 2 + 15
    markdown = (tmp_path / "out" / "compare.md").read_text().splitlines()
    assert markdown[0] == "| backbone | features | protocol | J&F-Mean | J-Mean | F-Mean |"
    with pytest.raises(UserError, match="already holds a run"):
        compare.run(CompareConfig(runs=[runs["first"]], out=tmp_path / "out"))


def test_differing_protocols_are_marked_or_refused(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    rows = compare.run(CompareConfig(runs=[runs["first"], runs["other"]], paper=False))
    assert [row["protocol"] for row in rows] == ["crw*", "dino* ≠"]
    printed = capsys.readouterr().out
    assert "protocols differ for davis (" in printed and "temperature" in printed and "window" in printed
    with pytest.raises(UserError, match=r"protocols differ for davis .* evaluate again with one protocol"):
        compare.run(CompareConfig(runs=[runs["first"], runs["other"]], strict=True))


def test_other_videos_are_marked(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same protocol and split on a folder with other videos; and neither is what the paper's numbers are of."""
    davis = synthetic.write_davis(tmp_path / "davis", {"b": synthetic.scene(4, (48, 64), num_objects=2)})
    settings: dict[str, Any] = {"videos": False, "stride": 4, "topk": 2, "protocol": "crw", "size": "native"}
    evaluate.davis("raw-pixels", data=davis, out=tmp_path / "out", **settings)
    rows = compare.run(CompareConfig(runs=[runs["first"], tmp_path / "out"]))
    assert [row["protocol"] for row in rows[:2]] == ["crw*", "crw* ≠"]
    printed = capsys.readouterr().out
    assert "protocols differ for davis (videos)" in printed
    assert "61 objects in 30 videos" in printed and "evaluations of 1 and 2 objects" in printed


def test_benchmarks_stand_side_by_side(runs: dict[str, Path]) -> None:
    rows = compare.run(CompareConfig(runs=[runs["first"], runs["joints"]]))
    assert "PCK@0.1" in rows[1] and "J&F-Mean" not in rows[1]
    paper = next(row for row in rows if row["backbone"] == "SiamMAE, ViT-S/16")
    assert (paper["J&F-Mean"], paper["PCK@0.2"]) == ("62.0", "76.1")


def test_folders_that_are_no_finished_evaluations(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run \(no config.yaml\)"):
        compare.run(CompareConfig(runs=[tmp_path]))
    (tmp_path / "config.yaml").write_text((runs["first"] / "config.yaml").read_text())
    with pytest.raises(UserError, match="has not finished"):
        compare.run(CompareConfig(runs=[tmp_path]))
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    with pytest.raises(UserError, match="does not say which command"):
        compare.run(CompareConfig(runs=[tmp_path]))
    with pytest.raises(UserError, match="nothing to compare"):
        compare.run(CompareConfig(runs=[]))


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"J&F-Mean": "a"}', b"{}", b"[" * 10000, b"\xff\xfe"])
def test_damaged_numbers_are_one_sentence(runs: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    shutil.copytree(next(iter(runs.values())), tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"(metrics\.json|/run) is (damaged|not UTF-8 text)"):
        compare.read_run(tmp_path / "run")
