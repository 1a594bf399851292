"""`--check` finds whatever is not as the manifest says."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.prepared_clips import write_prepared
from tests.prepare.footage import content
from videomac.data.manifest import manifest_settings, read_manifest, write_manifest
from videomac.errors import UserError
from videomac.prepare.command import run
from videomac.prepare.config import PrepareConfig


def check(clips: Path) -> None:
    run(PrepareConfig(Path("nowhere"), clips, workers=2, check=True))


def test_a_good_folder_passes_and_is_left_alone(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(prepared)
    check(prepared)
    assert "5 clips" in capsys.readouterr().out and content(prepared) == before


def _damage(clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 1
    clip.write_bytes(data)


def _other_sidecar(clip: Path) -> None:
    told = json.loads(clip.with_suffix(".json").read_text())
    clip.with_suffix(".json").write_text(json.dumps({**told, "fps": 30.0}, indent=2, sort_keys=True) + "\n")


def _no_row(clip: Path) -> None:
    table = read_manifest(clip.parent)
    rows = [row for row in table.to_pylist() if row["name"] != clip.name]
    made = {key: value for key, value in manifest_settings(table).items() if key != "format"}
    write_manifest(clip.parent, rows, made)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_damage, "is damaged or was replaced"),
        (lambda clip: clip.write_bytes(clip.read_bytes()[:-9]), r"has [\d,]+ bytes, and [\d,]+ by manifest.parquet"),
        (Path.unlink, r"cannot be read \(No such file or directory\)"),
        (lambda clip: clip.with_suffix(".json").unlink(), "cannot be read"),
        (_other_sidecar, "its sidecar tells other things"),
        (_no_row, "stands in no row"),
    ],
)
def test_what_is_wrong_is_named(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None], sentence: str
) -> None:
    clips = shutil.copytree(prepared, tmp_path / "clips")
    name = read_manifest(clips)["name"].to_pylist()[1]
    harm(clips / name)
    with (
        pytest.raises(UserError, match=r"5 clips, .*; 1 thing wrong: remove the clips")
        if harm is not _no_row
        else (pytest.raises(UserError, match=r"4 clips, .*; 2 things wrong: remove the clips"))
    ):
        check(clips)
    assert re.search(rf"{Path(name).stem}.(mp4|json): {sentence}", capsys.readouterr().out)


def test_what_was_never_prepared_is_one_sentence(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of clips"):
        check(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no manifest.parquet: run `videomac prepare`"):
        check(tmp_path)
    write_prepared(tmp_path / "other")
    with pytest.raises(UserError, match=r"was not made by `videomac prepare`, or lacks its folder \.prepare"):
        check(tmp_path / "other")
    clips = shutil.copytree(prepared, tmp_path / "clips")
    (clips / "manifest.parquet").write_bytes((clips / "manifest.parquet").read_bytes()[:200])
    with pytest.raises(UserError, match="is damaged or half-written"):
        check(clips)
