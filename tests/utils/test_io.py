"""Reading strangers' files, and writing files whole or not at all."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from videomac.errors import UserError
from videomac.utils.io import atomic_write, read_safetensors, read_torch


class Arbitrary(nn.Module):
    pass


def test_pickled_modules_are_not_loaded(tmp_path: Path) -> None:
    torch.save({"model": Arbitrary()}, tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(.*Arbitrary\), which could run code"):
        read_torch(tmp_path / "module.pth")


def test_settings_kept_as_a_namespace_are_read(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1, path=None)}, tmp_path / "file.pth")
    assert read_torch(tmp_path / "file.pth")["args"].lr == 0.1


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]
    assert path.stat().st_mode & 0o044 == (tmp_path / "deep").stat().st_mode & 0o044, "readable like any new file"


def test_a_folder_is_no_safetensors_file(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("read", [read_torch, read_safetensors])
def test_files_that_are_missing_or_cut_short_are_one_sentence(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    whole = tmp_path / "whole"
    tensors = {"weight": torch.arange(1000.0)}
    torch.save(tensors, whole) if read is read_torch else save_file(tensors, whole)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-500])
    assert torch.equal(read(whole)["weight"], tensors["weight"])
    for name, words in (("nowhere", "does not exist"), ("cut", "damaged")):
        with pytest.raises(UserError, match=words) as refused:
            read(tmp_path / name)
        assert name in str(refused.value) and "\n" not in str(refused.value)
