"""docs/method.md cites code and options by name: all of them must exist."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path

from videomac.train.config import PretrainConfig

PAGE = (Path(__file__).parents[1] / "docs" / "method.md").read_text(encoding="utf-8")


def resolve(name: str) -> object:
    """`package.module.Class.method` as Python finds it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_cited_name_exists() -> None:
    cited = set(re.findall(r"`(videomac(?:\.\w+)+)`", PAGE))
    assert len(cited) >= 18
    for name in cited:
        resolve(name)


def test_every_option_of_tables_3_and_4_exists() -> None:
    rows = re.findall(r"^\| ([34][a-f]) \|.*\| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
    assert [row for row, _ in rows] == ["3a", "3b", "3c", "3d", "4a", "4b", "4c", "4d", "4e", "4f"]
    options = {field.name for field in fields(PretrainConfig)}
    for _, cell in rows:
        assert set(re.findall(r"`(\w+)`", cell)) <= options
