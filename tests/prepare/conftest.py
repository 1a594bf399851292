"""Footage, and what is made of it, once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.prepare.footage import forkserver, write_footage
from videomac.prepare import processes
from videomac.prepare.command import run
from videomac.prepare.config import PrepareConfig


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_footage(tmp_path_factory.mktemp("footage") / "raw")


@pytest.fixture(scope="session")
def prepared(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips of `raw`; leave them as they are."""
    clips = tmp_path_factory.mktemp("prepared") / "clips"
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        run(PrepareConfig(raw, clips, workers=1))
    return clips


def quick(patch: pytest.MonkeyPatch) -> None:
    """Fork processes off a server that has imported all they need and has no threads: afresh each takes seconds."""
    patch.setattr(processes, "multiprocessing", SimpleNamespace(get_context=lambda _: forkserver()))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
