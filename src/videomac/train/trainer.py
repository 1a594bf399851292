"""What every training has in common, whatever it trains: its place, the trainer, the fit, the stop."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from videomac.config import TrainConfig, as_plain
from videomac.data.loader import TrainingData, require_full_shares
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
from videomac.train.resume import ResumePoint, resume_point
from videomac.utils.checkpoint_files import write_checkpoint
from videomac.utils.device import torchrun_shape
from videomac.utils.faults import told_in_a_sentence
from videomac.utils.io import read_torch
from videomac.utils.run_dir import hold


def is_first_process() -> bool:
    """Whether this is the process that writes, before and after the trainer knows of the others."""
    rank: int = rank_zero_only.rank  # type: ignore[attr-defined]
    return rank == 0


@contextmanager
def at_work(config: TrainConfig) -> Iterator[None]:
    """Hold the out folder while a run works in it, as its first process does for all of them.

    Raises:
        UserError: another command works there, or the machine stops the run: see `told_in_a_sentence`.
    """
    with told_in_a_sentence(config.out):
        if not is_first_process():
            yield
            return
        with hold(config.out):
            yield


class CheckpointIO(TorchCheckpointIO):
    """Writes and reads the trainer's checkpoints as `checkpoint_files` does, whole and verified."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target and rename."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read tensors and plain values; no code that a file may hold is run."""
        state: dict[str, Any] = read_torch(Path(path))
        return state


@dataclass
class Run:
    """A trainer, where it begins, and the callbacks that are asked for something when it has ended."""

    trainer: Trainer
    throughput: Throughput
    stop: GracefulStop
    resumed: ResumePoint | None


def build_run(
    config: TrainConfig, data: TrainingData, evaluations: Sequence[Callback], columns: Sequence[str], title: str
) -> Run:
    """Set up Lightning's trainer, with curves, checkpoints, a clean stop and a progress bar.

    Args:
        config: the options.
        data: tells the number of steps.
        evaluations: add numbers to the steps at which an epoch ends.
        columns: of `metrics.csv`.
        title: of the progress bar.

    Raises:
        UserError: a `trainer` option that it does not take, a batch that is too small for the devices, or no
            checkpoint to resume from that can be read.
    """
    resumed = resume_point(config)
    throughput = Throughput()
    metrics_logger = MetricsLogger(config.out / "metrics.csv", throughput, columns)
    checkpoints = Checkpoints(config, metrics_logger)
    stop = GracefulStop(checkpoints)
    # The order matters: the numbers of a step are complete, then written, then vouched for by a checkpoint.
    callbacks: list[Callback] = [*evaluations, metrics_logger, checkpoints, stop, TimeEstimate()]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(Bar(throughput, title) if sys.stdout.isatty() else ProgressLines(throughput))
    arguments = {
        "max_epochs": 1,
        "max_steps": data.total_steps,
        "precision": config.precision,
        **dict(zip(("devices", "num_nodes"), torchrun_shape() or (config.devices, config.num_nodes), strict=True)),
        "accumulate_grad_batches": config.micro_batches,
        "callbacks": [*callbacks, throughput],  # last, so that what the others do is not taken for waiting
        "logger": _loggers(config, resumed.step if resumed else 0),
        "plugins": CheckpointIO(),
        "default_root_dir": config.out,
        "log_every_n_steps": 1,
        "use_distributed_sampler": False,
        "enable_progress_bar": sys.stdout.isatty(),
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    try:
        trainer = Trainer(**{**arguments, **config.trainer})
    except Exception as error:  # what it raises for an argument of a wrong type is of many kinds
        raise UserError(f"the trainer refuses its options: {' '.join(str(error).split())}") from error
    require_full_shares(config.global_batch_size, trainer.world_size, config.micro_batches)
    return Run(trainer, throughput, stop, resumed)


def _loggers(config: TrainConfig, done: int) -> list[Logger]:
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
            trainer.fit(module, ckpt_path=run.resumed.checkpoint if run.resumed else None, weights_only=True)
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
