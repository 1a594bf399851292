"""YAML that anybody may have written."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from videomac.errors import UserError
from videomac.utils.yaml_text import LONGEST, load, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: 1e-3", {"a": 0.001}),
        ("[.5, 1., -1.5e+3, .inf]", [0.5, 1.0, -1500.0, float("inf")]),
        ("2026-01-01", "2026-01-01"),
        ("1.2.3", "1.2.3"),
        ("a: null\nb: ~", {"a": None, "b": None}),
        ("{a: [1, {b: true}]}", {"a": [1, {"b": True}]}),
        ("'1e-3'", "1e-3"),
        ("", None),
    ],
)
def test_plain_values_are_read(text: str, value: object) -> None:
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x]\nb: [*a, *a]", "anchors and aliases"),
        ("&a [*a]", "anchors and aliases"),
        ("!!int x", "tags"),
        ("a: !!python/name:os.system", "tags"),
        ("!own {}", "tags"),
        ("a: 1\na: 2", "'a' twice"),
        ("? [a]\n: 1", "a key must be a word"),
        ("[" * 50 + "]" * 50, "within each other"),
        ("9" * 5000, "limit"),
        ("0b_", "invalid literal"),
        ("x" * (LONGEST + 1), "characters"),
    ],
)
def test_what_is_more_than_that_is_refused(text: str, words: str) -> None:
    with pytest.raises(yaml.YAMLError, match=words):
        load(text)


def test_an_alias_bomb_costs_nothing() -> None:
    letters = "abcdefghij"
    bomb = f"a: &a [{', '.join('xxxxxxxxx')}]\n"
    bomb += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise(letters))
    assert len(bomb) < 500
    with pytest.raises(yaml.YAMLError, match="anchors"):
        load(bomb)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"name: \xe9")
    with pytest.raises(UserError, match=r"latin is not text in UTF-8 \(byte 6\)"):
        read(tmp_path / "latin")
    with pytest.raises(UserError, match="there is no file"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="no ordinary file"):
        read(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read(Path("x" * 5000))
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="no ordinary file"):
            read(tmp_path / "pipe")
