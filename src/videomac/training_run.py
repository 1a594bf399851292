"""What every training has in common, whatever it trains: out folder, loader, trainer, start, stop, resume."""

from __future__ import annotations

import importlib.util
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader, Dataset

from videomac.callbacks import Bar, Checkpoints, GracefulStop, Lines, Speed
from videomac.config import as_plain, changed_keys, save_config
from videomac.data.pairs import PairSampler
from videomac.errors import UserError
from videomac.files import read_torch
from videomac.outputs import claim


class RunConfig(Protocol):
    """The options that every training has."""

    data: Path
    out: Path
    epochs: int
    global_batch_size: int
    accumulate: int
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"]
    devices: int | Literal["auto"]
    num_nodes: int
    trainer: dict[str, Any]
    workers: int
    seed: int
    resume: bool
    overwrite: bool
    save_minutes: float
    save_steps: int
    keep_epochs: int
    wandb: bool


class RunData(Protocol):
    """What a training must know of its data."""

    steps_per_epoch: int
    total_steps: int
    identity: dict[str, Any]
    """Of what it consists; equal when a run may be resumed on it."""


def prepare_folder(config: RunConfig, data: RunData, owned: Sequence[str]) -> None:
    """Claim the out folder, or make sure that the run in it can be resumed; write the resolved config.

    Args:
        config: the options.
        data: what the run is trained on.
        owned: what such a run makes in its out folder, and all that `overwrite` deletes.

    Raises:
        UserError: the folder holds a run, there is nothing to resume, or the run is finished or another one.
    """
    if not config.resume:
        claim(config.out, owned, overwrite=config.overwrite)
        save_config(config, config.out / "config.yaml")
        return
    checkpoint = last_checkpoint(config)
    if not checkpoint.exists():
        raise UserError(
            f"nothing to resume in {config.out}: there is no {checkpoint}; leave out --resume to start a run"
        )
    if changed := changed_keys(config, config.out / "config.yaml"):
        raise UserError(
            f"cannot resume {config.out} with other settings: {', '.join(changed)} differ from its config.yaml; "
            f"use `--config {config.out}/config.yaml --resume`, or another --out for a new run"
        )
    state = read_torch(checkpoint)
    kind = next(iter(data.identity))
    if state["data"] != data.identity:
        raise UserError(
            f"cannot resume {config.out}: the {kind} in {config.data} are not those that it was trained on "
            f"({state['data'][kind]} then, {data.identity[kind]} now, or other names or lengths)"
        )
    if state["global_step"] >= data.total_steps:
        raise UserError(f"the run in {config.out} is finished, after {data.total_steps} steps: nothing to resume")


def last_checkpoint(config: RunConfig) -> Path:
    """Where the run keeps the checkpoint that it is resumed from."""
    return config.out / "checkpoints" / "last.ckpt"


def start_step(config: RunConfig) -> int:
    """Optimizer steps already taken."""
    return int(read_torch(last_checkpoint(config))["global_step"]) if config.resume else 0


def is_first_process() -> bool:
    """Whether this is the process that writes, before and after the trainer knows of the others."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0


def build_trainer(
    config: RunConfig, data: RunData, callbacks: Sequence[Callback], speed: Speed, *, title: str, start_step: int
) -> tuple[Trainer, GracefulStop]:
    """Set up Lightning's trainer, with checkpoints, a clean stop and a progress bar.

    Args:
        config: the options.
        data: tells the number of steps.
        callbacks: what happens after a step before its checkpoint is written: its numbers, and their curve.
        speed: measures it.
        title: of the progress bar.
        start_step: optimizer steps already taken.

    Raises:
        UserError: a `trainer` option that it does not take, or a batch that does not divide among the devices.
    """
    checkpoints = Checkpoints(
        config.out / "checkpoints", minutes=config.save_minutes, steps=config.save_steps, keep_epochs=config.keep_epochs
    )
    stop = GracefulStop(checkpoints)
    # The order matters: the numbers of a step are complete, then written, then vouched for by a checkpoint.
    callbacks = [*callbacks, checkpoints, stop]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(Bar(speed, title) if sys.stdout.isatty() else Lines(speed))
    arguments = {
        "max_epochs": 1,
        "max_steps": data.total_steps,
        "precision": config.precision,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "accumulate_grad_batches": config.accumulate,
        "callbacks": [*callbacks, speed],
        "logger": _loggers(config, start_step),
        "default_root_dir": config.out,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    try:
        trainer = Trainer(**{**arguments, **config.trainer})
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"the trainer refuses its options: {' '.join(str(error).split())}") from error
    shares = trainer.world_size * config.accumulate
    if config.global_batch_size % shares:
        raise UserError(
            f"global_batch_size {config.global_batch_size} does not divide into {trainer.world_size} devices times "
            f"{config.accumulate} micro-batches: make it a multiple of {shares}"
        )
    return trainer, stop


def _loggers(config: RunConfig, start_step: int) -> list[Logger]:
    loggers: list[Logger] = [
        TensorBoardLogger(config.out, name="", version="tensorboard", purge_step=start_step + 1 if start_step else None)
    ]
    if config.wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("wandb is not installed: pip install 'videomac[wandb]', or leave out --wandb")
        loggers.append(WandbLogger(project="videomac", save_dir=config.out, config=as_plain(config)))
    return loggers


def fit(
    config: RunConfig, data: RunData, trainer: Trainer, stop: GracefulStop, module: LightningModule, *, command: str
) -> bool:
    """Train to the end, or until told to stop.

    Returns:
        Whether this is the process that writes the results.

    Raises:
        UserError: one raised while training, also in a process that loads data.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # a moving average, on purpose
        warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning and the newest torch
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of depthwise weights, where they mean nothing
        try:
            trainer.fit(module, ckpt_path=last_checkpoint(config) if config.resume else None, weights_only=True)
        except UserError as error:  # from a worker it comes with the worker's traceback
            raise UserError(str(error).strip().rpartition("videomac.errors.UserError: ")[2]) from error
    if stop.stopped and trainer.is_global_zero:  # the others end as if nothing had happened
        raise KeyboardInterrupt(
            f"stopped at step {trainer.global_step} of {data.total_steps}, which is saved; continue with "
            f"`videomac {command} --config {config.out / 'config.yaml'} --resume`"
        )
    return trainer.is_global_zero and not stop.stopped


def mixed_seed(*numbers: int) -> int:
    """A well-mixed seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def whole_run_loader(
    dataset: Dataset[Any], length: int, config: RunConfig, *, start_step: int, rank: int, world_size: int
) -> DataLoader[Any]:
    """The micro-batches of one process from optimizer step `start_step` to the end of the run.

    Args:
        dataset: takes keys (epoch, index).
        length: of the data set.
        config: the options.
        start_step: optimizer steps already taken.
        rank: of this process, in 0..world_size - 1.
        world_size: number of processes.
    """
    sampler = PairSampler(
        length,
        global_batch_size=config.global_batch_size,
        rank=rank,
        world_size=world_size,
        accumulate=config.accumulate,
        seed=config.seed,
        start_step=start_step,
    )
    return ResumableLoader(
        dataset,
        batch_sampler=WholeRun(sampler, config.epochs, sampler.steps_per_epoch * config.epochs * config.accumulate),
        num_workers=config.workers,
        worker_init_fn=leave_signals_to_the_main_process,
        persistent_workers=config.workers > 0,  # which also lets the trainer end them when the run fails
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if config.workers else None,
    )


class WholeRun:
    """The micro-batches of all epochs in a row, from where the sampler stands.

    Its length is that of the whole run, resumed or not, which is how the trainer and its bar count.
    """

    def __init__(self, sampler: PairSampler, epochs: int, length: int) -> None:
        self.pairs, self.epochs, self.length = sampler, epochs, length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys of one micro-batch after the other."""
        for epoch in range(self.pairs.epoch, self.epochs):
            self.pairs.set_epoch(epoch)
            yield from self.pairs

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.length


class ResumableLoader(DataLoader[Any]):
    """A loader without a state of its own: where it starts follows from the trainer's step.

    The two methods tell the trainer that resuming in the middle is intended.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def leave_signals_to_the_main_process(_worker: int) -> None:
    """Keep reading after Ctrl-C or SIGTERM to the whole group: the main process finishes its step, saves and ends us.

    If it is stuck or gone half a minute after SIGTERM, the alarm ends us.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))
