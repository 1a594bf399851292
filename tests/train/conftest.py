"""Fixtures of the training tests."""

from __future__ import annotations

import pytest
from lightning.pytorch import Callback, Trainer

from videomac.train import trainer as trainer_module


@pytest.fixture
def with_callback(monkeypatch: pytest.MonkeyPatch):
    """Let a run have one more callback."""

    def add(callback: Callback) -> None:
        def build(**arguments):
            return Trainer(**{**arguments, "callbacks": [callback, *arguments["callbacks"]]})

        monkeypatch.setattr(trainer_module, "Trainer", build)

    return add
