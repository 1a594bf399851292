"""What an evaluation says of bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videomac import evaluate
from videomac.errors import UserError


def complaint(benchmark: str, data: Path, tmp_path: Path, **settings: Any) -> str:
    """The sentence that an evaluation ends with."""
    with pytest.raises(UserError) as caught:
        getattr(evaluate, benchmark)("raw-pixels", data=data, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "predictions").exists(), "found out too late"
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence
