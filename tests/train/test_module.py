"""A step does not wait for the device, and a step that is not finite changes nothing."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode

import videomac
from tests.train.runs import options, rows
from videomac.errors import UserError
from videomac.train.module import TrainModule
from videomac.utils.io import read_torch

READS_BACK = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}
"""What a GPU would have to be waited for."""


class Operators(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counted[function._schema.name] += 1
        return function(*args, **(kwargs or {}))


class CountSteps(Callback):
    """Counts the operators of each micro-batch, from its start to the end of everything that follows it."""

    def __init__(self) -> None:
        self.steps: list[Counter[str]] = []
        self._mode: Operators | None = None

    def on_train_batch_start(self, *_: object) -> None:
        self.close()
        self._mode = Operators()
        self._mode.__enter__()

    def close(self) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self.steps.append(self._mode.counted)
            self._mode = None

    def on_train_end(self, *_: object) -> None:
        self.close()


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet"])
def test_a_steady_step_reads_nothing_back(clips: Path, tmp_path: Path, with_callback, backbone: str) -> None:
    counter = CountSteps()
    with_callback(counter)
    videomac.pretrain(
        **options(clips, tmp_path / "run", epochs=1, held_out=0, accumulate=2, backbone=backbone, workers=1)
    )
    steady = counter.steps[2:-2]  # the first step makes the optimizer's state, the last one saves
    assert len(steady) >= 4
    for step in steady:
        assert not READS_BACK & step.keys(), {name: step[name] for name in READS_BACK & step.keys()}
    assert any("aten::_fused_adamw_" in step for step in steady)  # it is training that was looked at
    assert any(READS_BACK & step.keys() for step in counter.steps)  # and the counter sees what it looks for


class Plant(Callback):
    """Puts a NaN where it is told to, in one step, and keeps the weights that this step found."""

    def __init__(self, where: str, step: int) -> None:
        self.where, self.step = where, step
        self.before: dict[str, torch.Tensor] = {}
        self.module: TrainModule | None = None

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        self.module = module
        if trainer.global_step != self.step:
            return
        self.before = copy.deepcopy(dict(module.model.online.named_parameters()))
        norm = module.model.online.encoder.backbone.get_submodule("stages.2.blocks.1.norm")
        if self.where == "forward":
            norm.register_forward_hook(lambda module, inputs, output: output * float("nan"))
        else:
            norm.weight.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("forward", r"the loss is nan at optimizer step 4: the first module with a non-finite output is .*norm"),
        ("backward", r"the gradient is not finite at optimizer step 4: the output of every module is finite"),
    ],
)
def test_a_step_that_is_not_finite_changes_no_weight(
    clips: Path, tmp_path: Path, with_callback, where: str, said: str, accumulate: int
) -> None:
    plant = Plant(where, step=3)
    with_callback(plant)
    with pytest.raises(UserError, match=said) as stopped:
        videomac.pretrain(**options(clips, tmp_path / "run", held_out=0, save_steps=2, accumulate=accumulate))
    assert "no weight was changed, the last good checkpoint is" in str(stopped.value)
    assert plant.module is not None
    for name, parameter in plant.module.model.online.named_parameters():
        assert torch.equal(parameter, plant.before[name]), name
    checkpoint = read_torch(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]


def test_a_step_that_is_not_finite_is_never_vouched_for(clips: Path, tmp_path: Path, with_callback) -> None:
    """The bad step is the one at which a checkpoint is due."""
    with_callback(Plant("forward", step=3))
    with pytest.raises(UserError, match="at optimizer step 4"):
        videomac.pretrain(**options(clips, tmp_path / "run", held_out=0, save_steps=1))
    assert read_torch(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
