"""The table of prepared clips comes back as it was written, and a bad one is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videomac.data.manifest import MANIFEST, SCHEMA, manifest_settings, read_manifest, write_manifest
from videomac.errors import UserError

SETTINGS = {"short_side": 256, "gop": 12}


def row(name: str, **other: Any) -> dict[str, Any]:
    numbers = {"frames": 100, "fps": 25.0, "height": 256, "width": 454, "bytes": 123456, "start": 1.5}
    return {"name": name, **numbers, "source": "a folder/ä.mov", **other}


def write_raw(folder: Path, table: pa.Table, said: Any) -> None:
    pq.write_table(table.replace_schema_metadata({"videomac.prepare": json.dumps(said)}), folder / MANIFEST)


def test_it_comes_back_sorted(tmp_path: Path) -> None:
    write_manifest(tmp_path, [row("b.mp4"), row("a.mp4", bytes=2**40)], SETTINGS)
    table = read_manifest(tmp_path)
    assert table.schema.remove_metadata() == SCHEMA
    assert table.to_pylist() == [row("a.mp4", bytes=2**40), row("b.mp4")]
    assert manifest_settings(table) == {"format": 1, **SETTINGS}
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_no_clips_are_a_table_too(tmp_path: Path) -> None:
    write_manifest(tmp_path, [], SETTINGS)
    assert read_manifest(tmp_path).num_rows == 0


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for names in (["a.mp4", "b.mp4"], ["b.mp4", "a.mp4"]):
        write_manifest(tmp_path, [row(name) for name in names], SETTINGS)
        files.append((tmp_path / MANIFEST).read_bytes())
    assert files[0] == files[1]


def test_a_missing_one_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no manifest\.parquet: run `videomac prepare`"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_half_written_one_is_one_sentence(tmp_path: Path, kept: int) -> None:
    write_manifest(tmp_path, [row("a.mp4")], SETTINGS)
    path = tmp_path / MANIFEST
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"manifest\.parquet is damaged or half-written") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    write_manifest(tmp_path, [row("a.mp4")], SETTINGS)
    path = tmp_path / MANIFEST
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 200 + data[204:])
    with pytest.raises(UserError, match=r"damaged|no clip can have"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("name", "../a.mp4"), ("name", "sub/a.mp4"), ("name", "a.mp4\n"), ("frames", 0), ("fps", -1.0), ("bytes", 0)],
)
def test_rows_that_no_clip_can_have(tmp_path: Path, column: str, value: Any) -> None:
    write_manifest(tmp_path, [row("a.mp4"), row("b.mp4") | {column: value}], SETTINGS)
    with pytest.raises(UserError, match="rows that no clip can have"):
        read_manifest(tmp_path)


def test_a_clip_twice_and_a_wrong_order(tmp_path: Path) -> None:
    for names in (["a.mp4", "a.mp4"], ["b.mp4", "a.mp4"]):
        write_raw(
            tmp_path, pa.Table.from_pylist([row(name) for name in names], schema=SCHEMA), {"format": 1} | SETTINGS
        )
        with pytest.raises(UserError, match="not sorted, or names a clip twice"):
            read_manifest(tmp_path)


def test_what_others_wrote(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row("a.mp4")], schema=SCHEMA)
    pq.write_table(table, tmp_path / MANIFEST)
    with pytest.raises(UserError, match="was not written by `videomac prepare`"):
        read_manifest(tmp_path)
    for said in (7, {"format": 1}, {"format": 1, "short_side": "256", "gop": 12}):
        write_raw(tmp_path, table, said)
        with pytest.raises(UserError, match="was not written by `videomac prepare`"):
            read_manifest(tmp_path)
    write_raw(tmp_path, table, {"format": 2})
    with pytest.raises(UserError, match="has format 2, this version of videomac reads format 1"):
        read_manifest(tmp_path)
    write_raw(tmp_path, table.drop_columns(["fps"]), {"format": 1} | SETTINGS)
    with pytest.raises(UserError, match="has no column 'fps'"):
        read_manifest(tmp_path)
    write_raw(tmp_path, table.append_column("more", pa.array([1])), {"format": 1} | SETTINGS)
    with pytest.raises(UserError, match="other columns than expected"):
        read_manifest(tmp_path)
