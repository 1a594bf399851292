"""The two checkpoints that a run keeps in its folder: the newest, and the one before, should the newest be damaged."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from videomac.errors import UserError
from videomac.utils.io import atomic_write, read_torch

logger = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def write_checkpoint(checkpoint: Any, path: Path) -> None:
    """Replace `path`, a `last.ckpt`, at once; the file that it was becomes `previous.ckpt` beside it.

    It is written on its own disk alone: no copy in memory, none in the folder of temporary files.
    """
    with atomic_write(path) as temporary:
        with temporary.open("wb") as file:  # a full disk is then an OSError that says so
            torch.save(checkpoint, file)
        if path.exists():
            link_or_copy(path, path.with_name(PREVIOUS))


def read_checkpoint(folder: Path) -> tuple[Path, Any]:
    """Read `last.ckpt` in a folder or, with a warning, `previous.ckpt` where that one is missing or damaged.

    Returns:
        which of them it is, and what it holds.

    Raises:
        UserError: neither can be read.
    """
    refused: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = read_torch(path)
        except UserError as error:
            refused.append(str(error).rpartition(": ")[0])
            continue
        if path.name == PREVIOUS:
            reason = refused[0] if refused else f"{folder / LAST} is missing"
            logger.warning("%s: taking %s, the checkpoint before it", reason, path)
        return path, state
    if not refused:
        raise UserError(f"there is no {folder / LAST}: name a run that has taken a checkpoint")
    raise UserError(
        f"{'; '.join(refused)}: no checkpoint of this run can be read, so restore one from a copy, or train anew "
        "with --overwrite"
    )


def put_last(path: Path) -> None:
    """Let `previous.ckpt` take the place of a damaged `last.ckpt`, and stay what it is."""
    link_or_copy(path, path.with_name(LAST))


def link_or_copy(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, replacing what has that name; none is ever written into."""
    with atomic_write(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except (OSError, AttributeError):  # a file system, or a system, without links
            shutil.copyfile(source, temporary)
