"""The two checkpoints of a run: damage is noticed, and the one before stands in."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.runs import assert_equal
from videomac.errors import UserError
from videomac.utils.checkpoint_files import LAST, PREVIOUS, put_last, read_checkpoint, write_checkpoint
from videomac.utils.io import read_torch


def state(step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    return {"global_step": step, "weights": [torch.randn(40, 5, generator=generator) for _ in range(30)]}


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_the_file_before_is_kept_and_stands_in_with_a_sentence(tmp_path: Path, caplog: Any) -> None:
    for step in (1, 2, 3):
        write_checkpoint(state(step), tmp_path / LAST)
    assert sorted(os.listdir(tmp_path)) == [LAST, PREVIOUS]
    path, found = read_checkpoint(tmp_path)
    assert path.name == LAST and found["global_step"] == 3 and not caplog.records
    flip(tmp_path / LAST, 4 * (tmp_path / LAST).stat().st_size)  # half way
    path, found = read_checkpoint(tmp_path)
    assert path.name == PREVIOUS and found["global_step"] == 2
    (record,) = caplog.records
    assert "is damaged" in record.getMessage() and "checksum" in record.getMessage()
    put_last(path)
    write_checkpoint(state(4), tmp_path / LAST)
    assert read_torch(tmp_path / LAST)["global_step"] == 4
    assert read_torch(tmp_path / PREVIOUS)["global_step"] == 2, "never replaced by the damaged one"


def test_if_neither_can_be_read_it_is_one_sentence(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(state(step), tmp_path / LAST)
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(UserError, match=r"last\.ckpt is damaged.*previous\.ckpt is damaged.*train anew") as refused:
        read_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_stood_in_for_too(tmp_path: Path, caplog: Any) -> None:
    for step in (1, 2):
        write_checkpoint(state(step), tmp_path / LAST)
    (tmp_path / LAST).unlink()
    assert read_checkpoint(tmp_path)[1]["global_step"] == 1 and "is missing" in caplog.text


def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """Anywhere in the file: values, names, headers of the archive, padding."""
    path, whole = tmp_path / LAST, state(1)
    write_checkpoint(whole, path)
    content, draw = path.read_bytes(), random.Random(0)
    noticed = 0
    for bit in draw.sample(range(8 * len(content)), 150):
        flip(path, bit)
        try:
            assert_equal(read_torch(path), whole, f"bit {bit}")
        except UserError:
            noticed += 1
        path.write_bytes(content)
    assert noticed > 75


def test_nothing_is_written_elsewhere(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    (tmp_path / "run").mkdir()
    write_checkpoint(state(1), tmp_path / "run" / LAST)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", LAST]


def test_a_failed_write_spares_both(tmp_path: Path, monkeypatch: Any) -> None:
    for step in (1, 2):
        write_checkpoint(state(step), tmp_path / LAST)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError):
        write_checkpoint(state(3), tmp_path / LAST)
    assert [read_torch(tmp_path / name)["global_step"] for name in (LAST, PREVIOUS)] == [2, 1]
    assert sorted(os.listdir(tmp_path)) == [LAST, PREVIOUS]
