"""Footage, and what is made of it, once for all tests of this folder."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from tests.prepare.footage import write_footage
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
    """Fork processes, which have PyTorch then, instead of starting them afresh, which takes seconds."""
    forked = multiprocessing.get_context("fork")
    patch.setattr(processes.multiprocessing, "get_context", lambda _: forked)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)
