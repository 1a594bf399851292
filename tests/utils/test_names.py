"""Names that are read from files are never paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomac.errors import UserError
from videomac.utils.names import require_names

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
