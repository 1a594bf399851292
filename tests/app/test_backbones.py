"""Which backbones a browser may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from videomac.app.backbones import Backbones
from videomac.errors import UserError

CPU = torch.device("cpu")


def test_there_is_something_sensible_when_nothing_is_pre_trained() -> None:
    assert [name for _, name in Backbones([], CPU).choices] == ["resnet18", "raw-pixels", "tf_efficientnet_lite0.in1k"]


def test_a_folder_that_was_not_named_at_the_start_is_refused(tmp_path: Path) -> None:
    backbones = Backbones(["raw-pixels"], CPU)
    for name in (str(tmp_path), "../../x", "/etc/passwd", "https://example.org/a.pt", ""):
        with pytest.raises(UserError, match="none of timm's networks"):
            backbones.extractor(name, 2)


def test_a_backbone_is_loaded_once() -> None:
    backbones = Backbones(["raw-pixels"], CPU)
    assert backbones.extractor("raw-pixels", 2) is backbones.extractor(" raw-pixels ", 2)


def test_without_a_decoder_there_is_no_reconstruction() -> None:
    with pytest.raises(UserError, match="has no decoder"):
        Backbones(["resnet18"], CPU).model("resnet18")


def test_paths_are_called_by_their_last_part_unless_several_end_like_that(tmp_path: Path) -> None:
    runs = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"]
    for run in runs:
        run.mkdir(parents=True)
    backbones = Backbones([str(run) for run in runs], CPU)
    assert backbones.short(str(runs[2])) == "c" and backbones.short(str(runs[0])) == str(runs[0])
