"""Damaged files are one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from videomac.errors import UserError
from videomac.utils.reading import read_text, reading


def test_a_text_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes(b"\xef\xbb\xbfbear\n")
    assert read_text(tmp_path / "good.txt") == "bear\n"
    (tmp_path / "latin.txt").write_bytes("Küche".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 text"):
        read_text(tmp_path / "latin.txt")
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(UserError, match="is not a file"):
            read_text(path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.txt")
        with pytest.raises(UserError, match="is not a file"):
            read_text(tmp_path / "pipe.txt")


@pytest.mark.parametrize("content", ["[1", "[]", "{}", "[" * 10**5, '{"a": null}', '{"a": "b"}'])
def test_what_nonsense_makes_a_reader_raise_is_one_sentence(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json is damaged, or was changed by hand \(\w+Error: .*copy it again"):
        with reading(tmp_path / "a.json"):
            float(json.loads(content)["a"])


def test_what_has_its_sentence_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^mine$"), reading(tmp_path):
        raise UserError("mine")
    with pytest.raises(UserError, match=r"none\.csv does not exist"), reading(tmp_path):
        (tmp_path / "none.csv").open()
    with pytest.raises(MemoryError), reading(tmp_path):
        raise MemoryError
