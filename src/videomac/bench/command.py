"""What pre-training costs on this machine: the visible quarter against the whole frame, and the step's other parts."""

from __future__ import annotations

import copy
import functools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

from videomac.bench.config import BenchConfig
from videomac.bench.roofline import Ceilings, measure_ceilings, roofline_seconds
from videomac.config import save_config
from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.optim import adamw, parameter_groups, refuse_unless_finite
from videomac.train.pretrain import build_model, compiled
from videomac.utils.device import autocast, pick_device
from videomac.utils.run_dir import prepare_out_dir, write_metrics
from videomac.utils.video_writer import write_frames

OWNED = ("config.yaml", "metrics.json", "environment.json", "table.md")
"""Files of a measurement, in its out folder."""

COLUMNS = ("what", "blocks s", "masked s", "dense s", "masked / blocks", "dense / blocks", "memory", "", "load")


@dataclass
class Row:
    """One line of the table: medians in seconds, ratios of medians of rounds, bytes, and what could not be undercut.

    Attributes:
        what: network, or part of a step.
        seconds: median of each kind of run ("blocks", "masked", "dense").
        ratios: median over the rounds of "masked / blocks" and "dense / blocks".
        memory: peak bytes beyond what was held before, of "blocks" and "masked".
        roofline: seconds that the visible positions need at the device's ceilings, or None.
        note: anything else, such as a rate.
    """

    what: str
    seconds: dict[str, float]
    ratios: dict[str, float]
    memory: dict[str, int]
    roofline: float | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """The line as text, in the order of `COLUMNS`."""
        times = [f"{self.seconds[kind]:.4f}" if kind in self.seconds else "" for kind in ("blocks", "masked", "dense")]
        ratios = [f"{self.ratios[kind]:.2f}x" if kind in self.ratios else "" for kind in ("masked", "dense")]
        memory = f"{self.memory['blocks'] / self.memory['masked']:.2f}" if self.memory.get("masked") else ""
        note = f"{self.seconds['blocks'] / self.roofline:.1f}x the roofline" if self.roofline else self.note
        return [self.what, *times, *ratios, memory, note, f"{os.getloadavg()[0]:.1f}"]


def run(config: BenchConfig) -> dict[str, Any]:
    """Measure, print the table, and write it to the out folder.

    Returns:
        what is in `metrics.json`.

    Raises:
        UserError: a backbone or device that does not exist, an out folder in use.
    """
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    ceilings = measure_ceilings(device, _dtype(config))
    lines = [machine(config, device, ceilings), "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    print("\n".join(lines), flush=True)
    rows: list[Row] = []
    result: dict[str, Any] = {}
    for row in tqdm(_rows(config, device, ceilings), desc="Measuring", leave=False, disable=None):
        rows.append(row)
        lines.append(f"| {' | '.join(row.cells())} |")
        tqdm.write(lines[-1])
        result = {"machine": lines[0], "rows": [vars(row) for row in rows]}
        write_metrics(config.out, result)  # what is measured stays measured
        (config.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return result


def machine(config: BenchConfig, device: torch.device, ceilings: Ceilings) -> str:
    """Where and how it was measured, in one line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    where = name if device.type == "cuda" else f"{name}, {torch.get_num_threads()} thread(s)"
    return (
        f"{where}; torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}; "
        f"{config.precision}, {config.image_size} px, batch {config.batch}, {config.mask_ratio:.0%} hidden, "
        f"{config.rounds} rounds; ceilings {ceilings.flops / 1e12:.3g} TFLOP/s, {ceilings.bytes / 1e9:.3g} GB/s"
    )


def _rows(config: BenchConfig, device: torch.device, ceilings: Ceilings) -> Iterator[Row]:
    """All rows; one that cannot be measured says why and does not cost the others."""
    for name in config.backbones:
        yield from _or_reason(name, encoder_row, name, config, device, ceilings)
    for name in config.steps:
        yield from _or_reason(f"{name}, whole step", step_rows, name, config, device, ceilings)
    yield from _or_reason("reading pairs", loader_row, config)


def _or_reason(what: str, measure: Callable[..., Row | Iterator[Row]], *arguments: Any) -> Iterator[Row]:
    try:
        rows = measure(*arguments)
        yield from [rows] if isinstance(rows, Row) else rows
    except UserError:
        raise
    except Exception as error:  # a table with a gap is worth more than none
        reason = " ".join(str(error).split())[:120]
        yield Row(what, {}, {}, {}, note=f"not measured: {type(error).__name__}: {reason}")


def encoder_row(name: str, config: BenchConfig, device: torch.device, ceilings: Ceilings) -> Row:
    """Forward and backward of the encoder: the same weights, frames and mask, the three ways in turn."""
    torch.manual_seed(config.seed)
    network = create_backbone(name).to(device).to(memory_format=torch.channels_last)
    blocks = SparseEncoder(copy.deepcopy(network), mode="blocks")
    masked = SparseEncoder(copy.deepcopy(network), mode="masked")
    frames = torch.randn(config.batch, 3, config.image_size, config.image_size, device=device)
    frames = frames.contiguous(memory_format=torch.channels_last)
    cells = config.image_size // blocks.stride
    mask = random_mask(config.batch, (cells, cells), config.mask_ratio)  # on the host: nothing is read back
    modules = {"blocks": blocks, "masked": masked, "dense": network}
    # Of fixed sizes, as in a run; the tables of a mask are made outside the graph, in each step.
    maybe: Callable[[Any], Any] = functools.partial(torch.compile, dynamic=False) if config.compile else lambda f: f
    encode = maybe(blocks)

    def on_blocks() -> Tensor:
        given = blocks.prepare(mask, blocks.stride, device) if config.compile else mask
        return cast(Tensor, encode(frames, given))

    runs: dict[str, Callable[[], Tensor]] = {
        "blocks": on_blocks,
        "masked": functools.partial(maybe(masked), frames, mask),
        "dense": functools.partial(maybe(network.forward_features), frames),
    }

    def step(kind: str) -> None:
        modules[kind].zero_grad()
        with autocast(config.precision, device):
            features = runs[kind]()
        torch.autograd.backward(features.sum())

    steps: dict[str, Callable[[], None]] = {kind: functools.partial(step, kind) for kind in runs}
    times = paired(steps, config.rounds, device)
    # The cheapest correct masked-dense implementation counts: a clumsy one earns no speed-up.
    against = {"masked": [min(m, 1.15 * d) for m, d in zip(times["masked"], times["dense"], strict=True)]}
    against["dense"] = times["dense"]
    ratios = {
        kind: statistics.median(a / b for a, b in zip(values, times["blocks"], strict=True))
        for kind, values in against.items()
    }
    memory = {kind: peak_bytes(steps[kind], modules[kind], device) for kind in ("blocks", "masked")}
    roofline = roofline_seconds(network, frames[:1], ceilings, _dtype(config)) * config.batch * (1 - config.mask_ratio)
    return Row(name, {kind: statistics.median(t) for kind, t in times.items()}, ratios, memory, roofline)


def run_config(name: str, config: BenchConfig) -> PretrainConfig:
    """The options of a pre-training whose step is measured."""
    return PretrainConfig(
        data=Path("clips"), backbone=name, out=Path("out"), image_size=config.image_size, mask_ratio=config.mask_ratio,
        global_batch_size=config.batch, precision=config.precision, seed=config.seed, compile=config.compile,
    )  # fmt: skip


def step_rows(name: str, config: BenchConfig, device: torch.device, ceilings: Ceilings) -> Iterator[Row]:
    """One whole optimizer step on data that is on the device already; then the target's moving average alone."""
    run = run_config(name, config)
    model = build_model(run).to(device)
    optimizer = adamw(parameter_groups(model, run.weight_decay), run)
    pair = torch.randn(config.batch, 2, 3, config.image_size, config.image_size, device=device)
    mask = model.sample_mask(config.batch, (config.image_size, config.image_size))
    encoder = model.online.encoder
    compute = compiled(model) if run.compile else model

    def step() -> None:
        optimizer.zero_grad()
        with autocast(config.precision, device):
            loss = compute(pair, model.prepare(mask, device)).loss
        loss.backward()
        refuse_unless_finite(optimizer, loss.detach(), None)
        optimizer.step()
        model.update_target(0.996)

    times = paired({"step": step, "average": lambda: model.update_target(0.996)}, config.rounds, device)
    seconds = statistics.median(times["step"])
    # Online forward and backward and the target's forward: four thirds of the encoder's roofline.
    frame = torch.randn(1, 3, config.image_size, config.image_size, device=device)
    roofline = (
        roofline_seconds(encoder.backbone, frame, ceilings, _dtype(config)) * config.batch * (1 - config.mask_ratio)
    )
    memory = {"blocks": peak_bytes(step, model, device)}
    rate = f"{config.batch / seconds:.0f} pairs/s, {memory['blocks'] / 2**30:.2f} GiB, "
    rate += f"{seconds / (roofline * 4 / 3):.1f}x the encoders' roofline"
    yield Row(f"{name}, whole step", {"blocks": seconds}, {}, memory, note=rate)
    if device.type == "cuda":
        prepared = model.prepare(mask, device)
        graph = captured(lambda: compute(pair, prepared).loss, config)
        replayed = statistics.median(paired({"graph": graph.replay}, config.rounds, device)["graph"])
        note = f"{config.batch / replayed:.0f} pairs/s, without the optimizer"
        yield Row(f"{name}, forward and backward, CUDA graph", {"blocks": replayed}, {}, {}, note=note)
    yield Row(f"{name}, moving average", {"blocks": statistics.median(times["average"])}, {}, {})


def captured(loss: Callable[[], Tensor], config: BenchConfig) -> torch.cuda.CUDAGraph:
    """Forward and backward as a CUDA graph, which costs the host one call; gradients add up at each replay."""
    device = torch.device("cuda")

    def forward_and_backward() -> None:
        with autocast(config.precision, device):
            value = loss()
        torch.autograd.backward(value)

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is chosen and allocated at first is not part of the graph
        for _ in range(3):
            forward_and_backward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward_and_backward()
    return graph


def loader_row(config: BenchConfig) -> Row:
    """Pairs a second that one core reads, crops and normalises from a folder of 256-pixel JPEG frames."""
    with tempfile.TemporaryDirectory() as folder:
        for clip in range(4):
            write_frames(Path(folder) / f"clip{clip}", moving_shapes(40, (256, 456), seed=clip)[0])
        options = PretrainConfig(
            data=Path(folder), backbone="resnet18", out=Path(folder) / "out", image_size=config.image_size,
            global_batch_size=16, epochs=1, held_out=0, workers=0,
        )  # fmt: skip
        loader = PretrainingData(options, VideoMAC("resnet18")).loader(0, 0, 1)
        start, pairs = time.perf_counter(), 0
        for batch in loader:
            pairs += len(batch["pair"])
        seconds = time.perf_counter() - start
    return Row(
        "reading a pair from JPEG frames, one core",
        {"blocks": seconds / pairs},
        {},
        {},
        note=f"{pairs / seconds:.0f} pairs/s",
    )


def paired(steps: dict[str, Callable[[], None]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each round of each step, the steps taking turns; one round more comes first and is not counted."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(rounds + 1):
        for kind, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            times[kind].append(time.perf_counter() - start)
    return {kind: values[1:] for kind, values in times.items()}


def peak_bytes(step: Callable[[], None], module: nn.Module, device: torch.device) -> int:
    """Most bytes that PyTorch held during a step, above what it held before; gradients count as new."""
    module.zero_grad()
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it reports what it does to the terminal
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    held = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _dtype(config: BenchConfig) -> torch.dtype:
    return torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
