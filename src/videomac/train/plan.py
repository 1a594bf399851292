"""What a pre-training is about to do: how long, how much memory, in how many micro-batches; and whether that can be.

The memory of a step is what autograd keeps of the forward pass, which is measured on two pairs and grows with their
number, plus weights, gradients and the optimizer's state. On a CPU too much of it ends with the process being killed,
without a word; so it is refused before anything is written.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from videomac.config import read_config
from videomac.errors import UserError
from videomac.models.videomac import VideoMAC
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.trainer import is_first_process
from videomac.utils.device import pick_device, torchrun_shape

WORKER_BYTES = 400 * 2**20
"""What a process that reads videos holds beside its batches."""
PATCHES = 8
"""Rows and columns of patches that are measured at most."""
SHARE = 0.85
"""Of the free memory, what a run may plan with."""
GAPS = 1.3
"""Memory that a process takes for each byte that autograd keeps: the allocator's gaps, and what lives for a moment."""
HALF = 0.6
"""Of what autograd keeps in float32, what it keeps in mixed precision, in which norms and losses stay as they are."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training needs.

    Attributes:
        weights: weights of both networks, gradients, and the optimizer's two averages.
        per_pair: what one more pair in a micro-batch costs.
        pair: a pair itself.
        workers: number of these processes.
    """

    weights: int
    per_pair: int
    pair: int
    workers: int

    def step(self, micro_batch: int, prefetch: int) -> int:
        """Bytes of a run whose micro-batches have so many pairs, each worker reading `prefetch` of them ahead."""
        data = self.pair * micro_batch * (1 + self.workers * prefetch)
        return self.weights + self.per_pair * micro_batch + self.workers * WORKER_BYTES + data


def measure_memory(model: VideoMAC, data: PretrainingData, world_size: int) -> Memory:
    """Measure what a step keeps, on a copy of the model, with two pairs of frames.

    Of large frames a part is measured, and what it keeps grows with the area: the measurement itself must not take
    memory that is not there.
    """
    pairs = 2
    model = copy.deepcopy(model)
    height, width = (min(side, PATCHES * model.patch_size) for side in data.config.size)
    model.mask_ratio = min(model.mask_ratio, 1 - 1 / PATCHES**2)
    pair = torch.zeros(pairs, 2, 3, height, width, dtype=next(model.parameters()).dtype)
    with torch.random.fork_rng(devices=[]):
        mask = model.sample_mask(pairs, (height, width), torch.Generator().manual_seed(0))
        kept = saved_bytes(model, lambda: model(pair, mask).loss)
    kept = kept * data.config.size[0] * data.config.size[1] // (height * width)
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    if data.config.precision in ("bf16-mixed", "16-mixed"):
        kept = int(HALF * kept)
    held = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return Memory(held + 3 * trained, int(GAPS * kept) // pairs, data.sample_bytes, data.num_workers(world_size))


def saved_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps of a forward pass, other than the model's own tensors; each storage counts once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict(keep_vars=True).values()}
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
        held = sum(storage.nbytes() for storage in storages.values())
        del output
    return held


def free_bytes(device: torch.device) -> int | None:
    """Memory that this process may still take on a device; None if it cannot be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    return min(int(psutil.virtual_memory().available), _left_in_cgroup(Path("/sys/fs/cgroup")))


def _left_in_cgroup(root: Path) -> int:
    """What the control group of this process leaves it (containers, batch systems); without a limit, very much."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            held, taken = ((root / name).read_text(encoding="utf-8") for name in (limit, used))
            return int(held) - int(taken)
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return 2**62


def fewest_micro_batches(memory: Memory, data: PretrainingData, world_size: int, free: int) -> int:
    """The least number of micro-batches a step with which a run fits into `free` bytes on each device.

    Raises:
        UserError: not even one pair at a time fits.
    """
    share = -(-data.config.global_batch_size // world_size)
    for count in range(1, share + 1):
        if share % count == 0 and memory.step(share // count, 1) <= SHARE * free:
            return count
    raise UserError(
        f"not even one pair at a time fits into memory: it takes {gib(memory.step(1, 1))} and {gib(free)} are free; "
        "lower image_size, take a smaller backbone, or free memory"
    )


def require_memory(memory: Memory, data: PretrainingData, world_size: int, free: int) -> None:
    """Refuse a run that would be killed for its memory.

    Raises:
        UserError: says what is needed, what is free, and which commands would fit.
    """
    config = data.config
    needed = memory.step(data.micro_batch(world_size), data.prefetch(world_size))
    if needed <= free:
        return
    raise UserError(
        f"{data.micro_batch(world_size)} pairs of {config.size[0]}x{config.size[1]} pixels at once need about "
        f"{gib(needed)} of memory, and {gib(free)} are free: add --accumulate auto, which splits the step; or, for a "
        f"CPU or little data, run `videomac pretrain --data {config.data} --backbone {config.backbone} "
        f"--out {config.out} --recipe small`"
    )


def gib(size: int) -> str:
    """A size in GiB, for people."""
    return f"{size / 2**30:.1f} GiB"


def planned_devices(config: PretrainConfig) -> tuple[torch.device, int]:
    """The kind of device that the trainer will take, and how many of them on this machine."""
    device = torch.device("cpu") if config.trainer.get("accelerator") == "cpu" else pick_device("auto")
    if (shape := torchrun_shape()) is not None:
        return device, shape[0]
    if config.devices != "auto":
        return device, config.devices
    return device, 1 if device.type == "cpu" else torch.accelerator.device_count()


def settle_micro_batches(config: PretrainConfig, model: VideoMAC, data: PretrainingData) -> None:
    """Replace `accumulate: auto` by a number, refuse what does not fit into memory, and say what the run will do.

    The first process settles it and `config.yaml` keeps it, for the other processes and for resuming.

    Raises:
        UserError: the run does not fit, or "auto" was asked for where processes that were started by something else
            than the trainer could not agree on a number.
    """
    device, devices = planned_devices(config)
    shape = torchrun_shape()
    world_size = devices * (shape[1] if shape else config.num_nodes)
    if not is_first_process():
        if config.accumulate == "auto":
            config.accumulate = int(read_config(config.out, config.command)["accumulate"])
        return
    if config.accumulate == "auto" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError("accumulate auto is for one process, or for processes that videomac starts: give a number")
    given = 1 if config.accumulate == "auto" else config.accumulate
    if config.global_batch_size < world_size * given:
        config.accumulate = given
        return  # the trainer, which knows the devices for certain, refuses that
    memory, free = measure_memory(model, data, world_size), free_bytes(device)
    if free is not None and device.type == "cpu":
        free //= devices
    if config.accumulate == "auto":
        config.accumulate = 1 if free is None else fewest_micro_batches(memory, data, world_size, free)
    elif free is not None and device.type == "cpu":  # a GPU says itself that its memory is full; a CPU's system kills
        require_memory(memory, data, world_size, free)
    print("\n".join(describe(config, data, memory, free, world_size, of_batch_statistics(model))), flush=True)


def describe(
    config: PretrainConfig, data: PretrainingData, memory: Memory, free: int | None, world_size: int, batch_norm: bool
) -> list[str]:
    """What the run will do, in a few lines."""
    micro_batch = data.micro_batch(world_size)
    needed = gib(memory.step(micro_batch, data.prefetch(world_size)))
    parts = "" if config.micro_batches == 1 else f" in {config.micro_batches} micro-batches of {micro_batch}"
    lines = [
        f"{data.num_videos:,} videos, {data.length:,} pairs of {config.size[0]}x{config.size[1]} pixels: "
        f"{data.total_steps:,} steps of {config.global_batch_size} pairs{parts}, {data.num_epochs:,} epochs",
        f"about {needed} of memory on each of {world_size} device(s)"
        + ("" if free is None else f", where {gib(free)} are free")
        + f"; {memory.workers} process(es) read the videos",
    ]
    if config.micro_batches > 1 and (batch_norm or config.drop_path):
        what = "BatchNorm sees" if batch_norm else "Drop path draws for"
        lines.append(f"{what} one micro-batch at a time, so the numbers depend on --accumulate {config.micro_batches}")
    return lines


def of_batch_statistics(model: nn.Module) -> bool:
    """Whether a network has BatchNorm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
