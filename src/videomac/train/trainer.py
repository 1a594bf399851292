"""What every training has in common, whatever it trains: out folder, loader, trainer, start, stop, resume."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from videomac.config import TrainConfig, as_plain, changed_keys, read_config, save_config
from videomac.data.loader import TrainingData
from videomac.errors import UserError
from videomac.train.callbacks import (
    Bar,
    Checkpoints,
    GracefulStop,
    MetricsLogger,
    ProgressLines,
    Throughput,
    TimeEstimate,
)
from videomac.train.module import TrainModule
from videomac.utils.io import read_torch
from videomac.utils.run_dir import prepare_out_dir, require_unused


def require_out_dir(config: TrainConfig, owned: Sequence[str]) -> None:
    """Refuse an out folder that cannot be written into or resumed, before anything takes time.

    A resumed run keeps its number of micro-batches where "auto" was asked for.

    Args:
        config: the options.
        owned: what such a run makes in its out folder.

    Raises:
        UserError: the folder holds a run, there is nothing to resume, or the run in it has other settings.
    """
    if not config.resume:
        if not config.overwrite:
            require_unused(config.out, owned)
        return
    checkpoint = last_checkpoint(config)
    if not checkpoint.exists():
        raise UserError(
            f"nothing to resume in {config.out}: there is no {checkpoint}; leave out --resume to start a run"
        )
    if config.accumulate == "auto":
        config.accumulate = read_config(config.out, config.command)["accumulate"]
    if changed := changed_keys(config, config.out):
        raise UserError(
            f"cannot resume {config.out} with other settings: {', '.join(changed)} differ from its config.yaml; "
            f"use `--config {config.out}/config.yaml --resume`, or another --out for a new run"
        )


def prepare_folder(config: TrainConfig, data: TrainingData, owned: Sequence[str]) -> None:
    """Take the out folder, deleting an old run if told to, or make sure that the data are those of the run in it.

    Called when everything that can be refused has been: a mistake must not cost the old run.

    Raises:
        UserError: the folder holds a run, or the run in it is finished or was trained on other data.
    """
    if not config.resume:
        prepare_out_dir(config.out, owned, overwrite=config.overwrite)
        save_config(config)
        return
    state = read_torch(last_checkpoint(config))
    kind = next(iter(data.identity))
    if state["data"] != data.identity:
        raise UserError(
            f"cannot resume {config.out}: the {kind} in {config.data} are not those that it was trained on "
            f"({state['data'][kind]} then, {data.identity[kind]} now, or other names or lengths)"
        )
    if state["global_step"] >= data.total_steps:
        raise UserError(f"the run in {config.out} is finished, after {data.total_steps} steps: nothing to resume")


def last_checkpoint(config: TrainConfig) -> Path:
    """Where the run keeps the checkpoint that it is resumed from."""
    return config.out / "checkpoints" / "last.ckpt"


def start_step(config: TrainConfig) -> int:
    """Optimizer steps already taken."""
    return int(read_torch(last_checkpoint(config))["global_step"]) if config.resume else 0


def is_first_process() -> bool:
    """Whether this is the process that writes, before and after the trainer knows of the others."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0


@dataclass
class Run:
    """A trainer, and the callbacks that are asked for something when it has ended."""

    trainer: Trainer
    throughput: Throughput
    stop: GracefulStop


def build_run(config: TrainConfig, data: TrainingData, evaluation: Callback, columns: Sequence[str], title: str) -> Run:
    """Set up Lightning's trainer, with curves, checkpoints, a clean stop and a progress bar.

    Args:
        config: the options.
        data: tells the number of steps.
        evaluation: adds numbers to the steps at which an epoch ends.
        columns: of `metrics.csv`.
        title: of the progress bar.

    Raises:
        UserError: a `trainer` option that it does not take, or a batch that does not divide among the devices.
    """
    throughput = Throughput()
    metrics_logger = MetricsLogger(config.out / "metrics.csv", throughput, columns)
    checkpoints = Checkpoints(config, metrics_logger)
    stop = GracefulStop(checkpoints)
    # The order matters: the numbers of a step are complete, then written, then vouched for by a checkpoint.
    callbacks: list[Callback] = [evaluation, metrics_logger, checkpoints, stop, TimeEstimate()]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(Bar(throughput, title) if sys.stdout.isatty() else ProgressLines(throughput))
    arguments = {
        "max_epochs": 1,
        "max_steps": data.total_steps,
        "precision": config.precision,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "accumulate_grad_batches": config.micro_batches,
        "callbacks": [*callbacks, throughput],  # last, so that what the others do is not taken for waiting
        "logger": _loggers(config),
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
    shares = trainer.world_size * config.micro_batches
    if config.global_batch_size % shares:
        raise UserError(
            f"global_batch_size {config.global_batch_size} does not divide into {trainer.world_size} devices times "
            f"{config.micro_batches} micro-batches: make it a multiple of {shares}"
        )
    return Run(trainer, throughput, stop)


def _loggers(config: TrainConfig) -> list[Logger]:
    done = start_step(config)
    loggers: list[Logger] = [
        TensorBoardLogger(config.out, name="", version="tensorboard", purge_step=done + 1 if done else None)
    ]
    if config.wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("wandb is not installed: pip install '.[wandb]' in the checkout, or leave out --wandb")
        loggers.append(WandbLogger(project="videomac", save_dir=config.out, config=as_plain(config)))
    return loggers


def fit(config: TrainConfig, run: Run, module: TrainModule) -> bool:
    """Train to the end, or until told to stop.

    Returns:
        Whether this is the process that writes the results.

    Raises:
        UserError: one raised while training, also in a process that loads data.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    trainer = run.trainer
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found .* module.* in eval mode")  # a moving average, on purpose
        warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning and the newest torch
        try:
            trainer.fit(module, ckpt_path=last_checkpoint(config) if config.resume else None, weights_only=True)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the device's memory is full, with micro-batches of {module.data.micro_batch(trainer.world_size)}: "
                "add --accumulate auto or a larger number, or --precision bf16-mixed"
            ) from error
        except UserError as error:  # from a worker it comes with the worker's traceback
            raise UserError(str(error).strip().rpartition("videomac.errors.UserError: ")[2]) from error
    if run.stop.stopped and trainer.is_global_zero:  # the others end as if nothing had happened
        raise KeyboardInterrupt(
            f"stopped at step {trainer.global_step} of {module.data.total_steps}, which is saved; continue with "
            f"`videomac {config.command} --config {config.out / 'config.yaml'} --resume`"
        )
    return trainer.is_global_zero and not run.stop.stopped
