"""Starting and resuming: which run lies in the out folder, whether it may go on, where, and what of it is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from videomac.config import TrainConfig, changed_keys, read_config, save_config
from videomac.data.loader import TrainingData
from videomac.errors import UserError
from videomac.utils.checkpoint_files import LAST, PREVIOUS, put_last, read_checkpoint
from videomac.utils.run_dir import prepare_out_dir, require_unused

RESULTS = ("metrics.json", "backbone/model.safetensors", "classifier/model.safetensors")
"""What a run makes when all its steps are done; without them and without a checkpoint nothing of it can be lost."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on.

    Attributes:
        checkpoint: the file.
        step: optimizer steps taken.
        data: identity of what it was trained on.
    """

    checkpoint: Path
    step: int
    data: dict[str, Any]


def resume_point(config: TrainConfig) -> ResumePoint | None:
    """Read where the run in the out folder goes on; None for a run that starts.

    The checkpoint before the last one, with a warning, where the last one is damaged.

    Raises:
        UserError: no checkpoint of the run can be read, or it is not one of a training.
    """
    if not config.resume:
        return None
    path, state = read_checkpoint(config.out / "checkpoints")
    try:
        return ResumePoint(path, int(state["global_step"]), dict(state["data"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no checkpoint that a run can go on from ({error} is missing or wrong)") from None


def require_out_dir(config: TrainConfig, owned: Sequence[str]) -> None:
    """Refuse an out folder that cannot be written into or resumed, before anything takes time.

    A resumed run keeps its number of micro-batches where "auto" was asked for.

    Raises:
        UserError: the folder holds a run, there is nothing to resume, or the run in it has other settings.
    """
    if not config.resume:
        if not config.overwrite and not holds_only_a_start(config):
            require_unused(config.out, owned)
        return
    if not has_checkpoint(config):
        before = "the run in it had not come to its first checkpoint" if holds_only_a_start(config) else "it has none"
        raise UserError(
            f"nothing to resume in {config.out}, which has no checkpoints/{LAST} ({before}): leave out --resume to "
            "start"
        )
    if config.accumulate == "auto":
        config.accumulate = read_config(config.out, config.command)["accumulate"]
    _require_same_settings(config)


def _require_same_settings(config: TrainConfig) -> None:
    if changed := changed_keys(config, config.out):
        raise UserError(
            f"cannot resume {config.out} with other settings: {', '.join(changed)} differ from its config.yaml; "
            f"use `--config {config.out}/config.yaml --resume`, or another --out for a new run"
        )


def settle_resume(config: TrainConfig, results: Sequence[str]) -> dict[str, Any] | None:
    """Replace `resume: auto` by what it means here: to go on from a checkpoint, or to start, where there is none.

    Every process must call this, before anything is written: all of them find the same.

    Args:
        config: the options.
        results: what such a run makes after its last step.

    Returns:
        the final numbers, with a notice, if the run is finished and there is nothing left to do; else None.

    Raises:
        UserError: a finished run has other settings, or its numbers cannot be read.
    """
    if config.resume != "auto":
        return None
    config.resume = has_checkpoint(config)
    if not config.resume or not all((config.out / name).exists() for name in results):
        return None
    _require_same_settings(config)
    try:
        numbers: dict[str, Any] = json.loads((config.out / "metrics.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{config.out / 'metrics.json'} is damaged: delete it, and repeat the command") from error
    rank_zero_only(print)(f"the run in {config.out} is finished: nothing to do", flush=True)
    return numbers


def has_checkpoint(config: TrainConfig) -> bool:
    """Whether the run in the out folder has taken a checkpoint that it goes on from."""
    return any((config.out / "checkpoints" / name).exists() for name in (LAST, PREVIOUS))


def holds_only_a_start(config: TrainConfig) -> bool:
    """Whether a run of this command lies in the out folder that ended before its first checkpoint.

    Nothing of it is worth keeping, and the same command starts it again.
    """
    if any((config.out / "checkpoints").glob("*.ckpt")) or any((config.out / name).exists() for name in RESULTS):
        return False
    try:
        read_config(config.out, config.command)
    except UserError:
        return False
    return True


def prepare_folder(
    config: TrainConfig, data: TrainingData, owned: Sequence[str], results: Sequence[str], point: ResumePoint | None
) -> None:
    """Take the out folder, deleting an old run if told to, or make sure that the run in it may go on.

    Called when everything that can be refused has been: a mistake must not cost the old run.

    Args:
        config: the options.
        data: what the run is trained on now.
        owned: what such a run makes in its out folder.
        results: what of that it makes after its last step.
        point: where it goes on.

    Raises:
        UserError: the folder holds a run, or the run in it is finished and complete, or was trained on other data.
    """
    if point is None:
        prepare_out_dir(config.out, owned, overwrite=config.overwrite or holds_only_a_start(config))
        save_config(config)
        return
    kind = next(iter(data.identity))
    if point.data != data.identity:
        raise UserError(
            f"cannot resume {config.out}: the {kind} in {config.data} are not those that it was trained on "
            f"({point.data.get(kind)} then, {data.identity[kind]} now, or other names or lengths)"
        )
    if point.checkpoint.name == PREVIOUS:
        put_last(point.checkpoint)
    if point.step >= data.total_steps:
        missing = [name for name in results if not (config.out / name).exists()]
        if not missing:
            raise UserError(f"the run in {config.out} is finished, after {data.total_steps} steps: nothing to resume")
        print(f"all {data.total_steps} steps are done; making what is missing: {', '.join(missing)}", flush=True)
