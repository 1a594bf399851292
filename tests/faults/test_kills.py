"""A killed command loses nothing: resumed until it is done, it leaves the bits of one that was left alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import kills

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
NAMES = ("pretrain", "finetune", "probe", "eval davis")


@pytest.mark.parametrize("name", ["eval davis"])
def test_a_kill_costs_no_bit(name: str, clips: Path, tmp_path: Path) -> None:
    (victim,) = (each for each in kills.victims(tmp_path, clips) if each.name == name)
    assert kills.campaign(victim, tmp_path, kills=1, seed=1) == 1


@pytest.mark.faults
@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_kills_cost_no_bit(name: str, clips: Path, tmp_path: Path, seed: int) -> None:
    (victim,) = (each for each in kills.victims(tmp_path, clips) if each.name == name)
    assert kills.campaign(victim, tmp_path, kills=25, seed=seed) == 25
