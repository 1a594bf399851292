"""Options of `prepare` that cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videomac import cli
from videomac.errors import UserError
from videomac.prepare.config import PrepareConfig


@pytest.mark.parametrize("part", ["1", "1/1", "-1/2", "2/1", "0/0", "a/b", "1/2/3", "0/9999999999"])
def test_a_part_is_one_of_so_many(part: str) -> None:
    with pytest.raises(UserError, match="part must be i/n with i from 0 to n - 1"):
        PrepareConfig(Path("raw"), Path("clips"), part=part)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"workers": 0}, "workers must be 'auto' or at least 1"),
        ({"workers": "many"}, "workers must be"),
        ({"raw": Path("s3://bucket/raw")}, "URLs are not read"),
        ({"drop_static": 1}, "drop_static must be true or false"),
        ({"ray": "ray://head:10001"}, "ray must be auto, local or the host:port of a cluster"),
        ({"ray": "head"}, "ray must be auto, local or the host:port of a cluster"),
        ({"ray": "auto", "workers": 2}, "leave out workers: Ray uses every core"),
        ({"ray": "auto", "check": True}, "leave out ray: check reads the clips on this machine"),
    ],
)
def test_a_value_that_cannot_be_is_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PrepareConfig(**{"raw": Path("raw"), "clips": Path("clips"), **values})


def test_the_command_line_gives_the_options(tmp_path: Path) -> None:
    config = cli.parse("prepare", ["raw", str(tmp_path / "clips"), "--part", "3/256", "--check"])
    assert config.share == (3, 256) and config.check and config.workers == "auto"
    assert cli.parse("prepare", ["raw", str(tmp_path / "clips"), "--ray", "10.0.0.1:6379"]).ray == "10.0.0.1:6379"
