"""A made-up DAVIS that most tests of evaluations use."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomac.evaluate import synthetic


@pytest.fixture(scope="session")
def flat() -> dict[str, synthetic.Scene]:
    """Two sequences of flat colours, 2 and 1 objects."""
    return {
        "two": synthetic.scene(6, (48, 80), num_objects=2, textured=False),
        "one": synthetic.scene(5, (48, 64), num_objects=1, seed=1, textured=False),
    }


@pytest.fixture
def davis_root(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> Path:
    return synthetic.write_davis(tmp_path / "davis", flat, suffix=".png")
