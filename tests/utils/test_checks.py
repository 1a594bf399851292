"""What every option of every command must be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from videomac.errors import UserError
from videomac.utils.checks import check_values, require_writable, shown


@dataclass
class Options:
    """Of every type that an option has."""

    out: Path = Path("out")
    whole: int = 1
    real: float = 0.5
    pair: tuple[float, float] = (0.1, 0.2)
    names: list[str] = field(default_factory=list)
    kind: Literal["a", "b"] = "a"
    automatic: int | Literal["auto"] = "auto"
    text: str = "word"
    switch: bool = False
    filled_in: int = None  # type: ignore[assignment]
    network: Any = "resnet18"
    further: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    "given",
    [
        *({}, {"whole": np.int64(3)}, {"real": 1}, {"real": np.float32(2)}, {"pair": [0, 1]}, {"filled_in": None}),
        *({"automatic": 3}, {"out": "out"}, {"network": object()}, {"network": Path("x")}, {"further": {"a": [1]}}),
        *({"whole": 2**32 - 1}, {"out": "x" * 255}, {"text": "é"}),
    ],
)
def test_what_can_be_is_accepted(given: dict[str, Any]) -> None:
    check_values(Options(**given))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"whole": None}, "whole must be a whole number, but is None"),
        ({"whole": True}, "whole must be a whole number, but is True"),
        ({"whole": 1.5}, "whole must be a whole number, but is 1.5"),
        ({"whole": 2**32}, "whole must lie between -4,294,967,295 and 4,294,967,295, but is 4294967296"),
        ({"whole": 10**5000}, "but is too long to show"),
        ({"real": float("nan")}, "real must be finite, but is nan"),
        ({"real": float("inf")}, "real must be finite, but is inf"),
        ({"real": 1e308}, "real must lie between 1e-12 and 1000000000000.0, or be 0, but is 1e[+]308"),
        ({"real": 1e-320}, "real must lie between 1e-12"),
        ({"real": [0.5]}, r"real must be a number, but is \[0.5\]"),
        ({"pair": (1.0,)}, r"pair must be \[a number, a number\], but is \(1.0,\)"),
        ({"pair": (1.0, float("nan"))}, "pair must be finite"),
        ({"names": "a"}, "names must be one or more: text, but is 'a'"),
        ({"names": [1]}, r"names must be one or more: text, but is \[1\]"),
        ({"names": [""]}, "names must not be empty"),
        ({"kind": "c"}, "kind must be one of a, b, but is 'c'"),
        ({"automatic": "c"}, "automatic must be a whole number or one of auto"),
        ({"text": ""}, "text must not be empty"),
        ({"text": "x" * 10**6}, r"at most 4,095 bytes.*x\.\.\. \(1,000,002 characters\)"),
        ({"out": "a\0b"}, "out must not hold a NUL character"),
        ({"out": "x" * 256}, "out must have at most"),
        ({"out": "\ud800"}, "out holds a letter"),
        ({"switch": "yes"}, "switch must be true or false"),
        ({"filled_in": "x"}, "filled_in must be a whole number"),
        ({"network": 3}, "network must be a name or a path, but is 3"),
        ({"network": None}, "network must be a name or a path, but is None"),
        ({"further": {1: 2}}, "further must be a mapping"),
        ({"further": {"a": float("nan")}}, "further must be finite"),
    ],
)
def test_what_nothing_can_be_done_with_is_refused_by_name(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_values(Options(**given))


def test_a_long_value_is_cut() -> None:
    assert shown("abc") == "'abc'" and len(shown("x" * 10**6)) < 130 and shown(Path("a")) == "'a'"


def test_an_out_folder_that_cannot_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    require_writable("out", tmp_path / "a" / "b")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"out .* cannot be a folder, because .*file is a file"):
            require_writable("out", out)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="allows it not"):
        require_writable("out", tmp_path / "a")
