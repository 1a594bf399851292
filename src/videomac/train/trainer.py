"""What every training has in common, whatever it trains: out folder, loader, trainer, start, stop, resume."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from videomac.config import TrainConfig, as_plain, changed_keys, save_config
from videomac.data.loader import TrainingData
from videomac.errors import UserError
from videomac.train.callbacks import Bar, Checkpoints, GracefulStop, ProgressLines, Throughput
from videomac.utils.io import read_torch
from videomac.utils.run_dir import prepare_out_dir


def prepare_folder(config: TrainConfig, data: TrainingData, owned: Sequence[str]) -> None:
    """Claim the out folder, or make sure that the run in it can be resumed; write the resolved config.

    Args:
        config: the options.
        data: what the run is trained on.
        owned: what such a run makes in its out folder, and all that `overwrite` deletes.

    Raises:
        UserError: the folder holds a run, there is nothing to resume, or the run is finished or another one.
    """
    if not config.resume:
        prepare_out_dir(config.out, owned, overwrite=config.overwrite)
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


def build_trainer(
    config: TrainConfig,
    data: TrainingData,
    callbacks: Sequence[Callback],
    speed: Throughput,
    *,
    title: str,
    start_step: int,
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
        callbacks.append(Bar(speed, title) if sys.stdout.isatty() else ProgressLines(speed))
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


def _loggers(config: TrainConfig, start_step: int) -> list[Logger]:
    loggers: list[Logger] = [
        TensorBoardLogger(config.out, name="", version="tensorboard", purge_step=start_step + 1 if start_step else None)
    ]
    if config.wandb:
        if importlib.util.find_spec("wandb") is None:
            raise UserError("wandb is not installed: pip install 'videomac[wandb]', or leave out --wandb")
        loggers.append(WandbLogger(project="videomac", save_dir=config.out, config=as_plain(config)))
    return loggers


def fit(
    config: TrainConfig,
    data: TrainingData,
    trainer: Trainer,
    stop: GracefulStop,
    module: LightningModule,
    *,
    command: str,
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
