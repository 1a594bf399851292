"""Names that are read from files are never paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videomac.errors import UserError
from videomac.utils.names import read_list, require_names

LIST = Path("val.txt")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../victim",
        "/etc",
        "a/b",
        "a/../b",
        "a\\b",
        "C:",
        "C:\\a",
        "a\0b",
        "a\nb",
        " ",
        "x" * 300,
        "a\udcff",
    ],
)
def test_what_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"val.txt holds .*not a plain name \(NAME\)"):
        require_names(["bear", name], LIST)


@pytest.mark.parametrize("name", ["catch", "../catch", "catch/..", "catch/a/b", "/catch/a", "catch/", "catch//a"])
def test_every_part_of_a_name_must_be_plain(name: str) -> None:
    with pytest.raises(UserError, match="NAME/NAME"):
        require_names([name], LIST, parts=2)


def test_plain_names_pass() -> None:
    require_names(["blackswan", "bmx-trees", "Küche 中文", "..a", "a.b", ".hidden"], LIST)
    require_names(["catch/Goal_Keeping_Tips"], LIST, parts=2)


def test_a_list_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes(b"\xef\xbb\xbfbear\n")
    assert read_list(tmp_path / "good.txt") == "bear\n"
    (tmp_path / "latin.txt").write_bytes("Küche".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_list(tmp_path / "latin.txt")
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="is not a file"):
            read_list(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.txt")
        with pytest.raises(UserError, match="is not a file"):
            read_list(tmp_path / "pipe.txt")
