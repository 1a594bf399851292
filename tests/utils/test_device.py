"""Which device a command computes on: one rule for all that have `--device`."""

from __future__ import annotations

import pytest
import torch

from videomac.bench import command as bench
from videomac.classify import features as probe
from videomac.errors import UserError
from videomac.evaluate import harness
from videomac.figures import command as figures
from videomac.reconstruction import command as reconstruction
from videomac.utils.device import autocast, pick_device


@pytest.mark.parametrize("accelerator", ["cuda", "mps", "xpu", None])
def test_auto_takes_whatever_accelerator_there_is(accelerator: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def current(check_available: bool = False) -> torch.device | None:
        assert check_available  # PyTorch may be built for one that the machine lacks
        return None if accelerator is None else torch.device(accelerator)

    monkeypatch.setattr("torch.accelerator.current_accelerator", current)
    assert pick_device("auto") == torch.device(accelerator or "cpu")


def test_a_named_device_is_taken_or_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"device 'cudda' cannot be used .*: try --device cpu"):
        pick_device("cudda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(UserError, match="device 'cuda' cannot be used"):
        pick_device("cuda")


def test_no_command_has_another_rule() -> None:
    assert all(module.pick_device is pick_device for module in (harness, probe, reconstruction, figures, bench))


def test_precision_is_that_of_the_matrix_products() -> None:
    cpu = torch.device("cpu")
    a = torch.ones(2, 2)
    with autocast("32-true", cpu):
        assert (a @ a).dtype == torch.float32
    with autocast("bf16-mixed", cpu):
        assert (a @ a).dtype == torch.bfloat16
    with autocast("16-mixed", cpu):
        assert (a @ a).dtype == torch.float16
