"""The bench command and the roofline it compares with."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from torch import nn

import videomac
from tests.train.runs import options
from videomac import cli
from videomac.bench import command
from videomac.bench.command import encoder_row, paired, peak_bytes, run
from videomac.bench.config import BenchConfig
from videomac.bench.roofline import Ceilings, roofline_by_stage, roofline_seconds
from videomac.errors import UserError
from videomac.train import optim

CEILINGS = Ceilings(flops=1e9, bytes=1e12)


class TwoLayers(nn.Module):
    """A convolution and a linear layer whose costs can be worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.head = nn.Linear(8, 16)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x).permute(0, 2, 3, 1))


def test_floor_by_hand() -> None:
    frames = torch.zeros(1, 3, 8, 8)
    stages = roofline_by_stage(TwoLayers(), frames, CEILINGS, torch.float32)
    # 2 x 2 positions; forward once and backward twice, a multiplication and an addition each.
    assert stages == pytest.approx({"stem": 3 * 2 * 4 * 8 * 48 / 1e9, "head": 3 * 2 * 4 * 16 * 8 / 1e9})
    slow_memory = Ceilings(flops=1e15, bytes=1e6)
    stages = roofline_by_stage(TwoLayers(), frames, slow_memory, torch.bfloat16)
    assert stages["stem"] == pytest.approx((3 * 3 * 64 + 2 * 8 * 4) * 2 / 1e6)


def test_floor_counts_what_timm_says() -> None:
    """4.1 billion multiplications of a ResNet-50 at 224 pixels, without the classifier."""
    network = timm.create_model("resnet50", num_classes=0)
    arithmetic = Ceilings(flops=1.0, bytes=float("inf"))
    assert roofline_seconds(network, torch.zeros(1, 3, 224, 224), arithmetic, torch.float32) / 6 == pytest.approx(
        4.09e9, rel=0.01
    )


def test_peak_counts_tensors() -> None:
    module = nn.Linear(1, 1)
    held: list[torch.Tensor] = []

    def step() -> None:
        temporary = torch.empty(3 * 2**20, dtype=torch.uint8)
        del temporary
        held.append(torch.empty(2**20, dtype=torch.uint8))

    assert peak_bytes(step, module, torch.device("cpu")) == pytest.approx(3 * 2**20, rel=0.01)


def test_steps_take_turns() -> None:
    order: list[str] = []
    times = paired({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, torch.device("cpu"))
    assert order == ["a", "b"] * 3 and len(times["a"]) == 2


def test_blocks_need_less_memory_than_the_masked_frame(tmp_path: Path) -> None:
    config = BenchConfig(out=tmp_path, image_size=128, batch=4, rounds=1, threads=0)
    row = encoder_row("resnet18", config, torch.device("cpu"), CEILINGS)
    assert row.memory["blocks"] < row.memory["masked"]
    assert set(row.seconds) == {"blocks", "masked", "dense"}


def test_command_leaves_table_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"backbones": ["resnet18"], "steps": ["resnet18"], "image_size": 64, "batch": 2, "rounds": 1}
    result = run(BenchConfig(out=tmp_path / "bench", threads=0, **options))  # type: ignore[arg-type]
    table = (tmp_path / "bench" / "table.md").read_text()
    assert [row["what"] for row in result["rows"]][:2] == ["resnet18", "resnet18, whole step"]
    assert table.count("\n| ") == 5 and "pairs/s" in table and table.splitlines()[0] in capsys.readouterr().out
    assert json.loads((tmp_path / "bench" / "metrics.json").read_text())["rows"][0]["seconds"]["blocks"] > 0
    with pytest.raises(UserError, match="already holds a run"):
        run(BenchConfig(out=tmp_path / "bench"))


def test_a_device_that_is_not_there_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="device 'cudda' cannot be used"):
        run(BenchConfig(out=tmp_path / "out", device="cudda"))
    assert not (tmp_path / "out").exists()


def test_what_is_measured_is_what_is_trained(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory format, optimizer and precision of the step are a run's."""
    seen: list[dict[str, object]] = []
    made = optim.adamw

    def looked_at(groups, config):
        optimizer = made(groups, config)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        strides = {(tuple(p.shape), p.stride()) for p in parameters}
        kept = {key: optimizer.defaults[key] for key in ("fused", "betas", "foreach", "capturable")}
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        seen.append({"strides": strides, "decays": decays, "precision": config.precision, **kept})
        return optimizer

    monkeypatch.setattr(optim, "adamw", looked_at)
    monkeypatch.setattr(command, "adamw", looked_at)
    changed = {"decoder_width": 512, "precision": "bf16-mixed", "image_size": 64, "epochs": 1, "held_out": 0}
    videomac.pretrain(**options(clips, tmp_path / "run", **changed))
    config = BenchConfig(out=tmp_path / "bench", image_size=64, batch=2, rounds=1, precision="bf16-mixed")
    list(command.step_rows("test_convnext", config, torch.device("cpu"), CEILINGS))
    trained, measured = seen
    assert trained == measured
    assert any(stride[1] == 1 for shape, stride in measured["strides"] if len(shape) == 4 and min(shape[1:3]) > 1)


@pytest.mark.slow
def test_a_row_that_cannot_be_measured_does_not_cost_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = command.encoder_row

    def broken(name, *arguments):
        if name == "test_resnet":
            raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")
        return plain(name, *arguments)

    monkeypatch.setattr(command, "encoder_row", broken)
    names = ["test_convnext", "test_resnet", "test_efficientnet"]
    config = BenchConfig(out=tmp_path, backbones=names, steps=[], image_size=64, batch=2, rounds=1, device="cpu")
    result = run(config)
    assert [row["what"] for row in result["rows"]][:3] == names
    assert "not measured: RuntimeError: CUDA error: an illegal memory access was" in capsys.readouterr().out
    assert "not measured" in (tmp_path / "table.md").read_text()


@pytest.fixture(scope="module")
def gpu_script() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "gpu.py"
    spec = importlib.util.spec_from_file_location("bench_gpu", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_gpu"] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_the_parts_of_the_gpu_script_exist_and_end_in_time(gpu_script: ModuleType, tmp_path: Path) -> None:
    parts = gpu_script.parts(tmp_path, "cuda", 256)
    assert sum(part.seconds for part in parts) <= 600
    root = Path(__file__).parents[2]
    for part in parts:
        if part.arguments[:2] == ["-m", "videomac"]:
            assert cli.parse(part.arguments[2], part.arguments[3:]).device == "cuda"
        for word in part.arguments:
            assert not word.endswith(".py") or (root / word).is_file()


def test_a_part_that_fails_or_hangs_costs_no_other(gpu_script: ModuleType, tmp_path: Path, capsys) -> None:
    def run_code(name: str, code: str) -> str:
        return gpu_script.run(gpu_script.Part(name, ["-S", "-c", code], 5), tmp_path)

    hang = "import time; print('so far', flush=True); time.sleep(60)"
    assert run_code("good", "print('fine')").startswith("done")
    assert run_code("bad", "print('half'); raise SystemExit(3)").startswith("FAILED, status 3")
    assert run_code("hung", hang).startswith("STOPPED after 5 s")
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("fine", "half", "so far"))
