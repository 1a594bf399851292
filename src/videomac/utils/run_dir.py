"""The out folder of a command: who may write into it, and what every command leaves there."""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import io
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from videomac.errors import UserError
from videomac.utils.faults import require_open_files, told_in_a_sentence
from videomac.utils.file_lock import FileLock
from videomac.utils.io import atomic_write, remove_partial
from videomac.utils.reading import read_text, reading

logger = logging.getLogger(__name__)
Config = TypeVar("Config")
Result = TypeVar("Result")

LOCK = ".lock"
"""The file in an out folder that is locked while a command works there."""
_held: set[Path] = set()


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Work in an out folder alone; a lock says so, which ends with this process however that ends.

    What a killed command has left half written is removed first. A folder that is made for the lock, and in which
    nothing is left, is removed again. Within one process a folder may be held several times.

    Raises:
        UserError: another process works there, the folder cannot be made, or too few files may be open.
    """
    place = out.absolute()
    if place in _held:
        yield
        return
    require_open_files()
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    lock = FileLock(place / LOCK)
    try:
        free = lock.acquire()
    except OSError as error:
        raise UserError(f"cannot make the out folder {out}: {error.strerror}") from error
    if not free:
        raise UserError(
            f"another command is at work in {out} ({lock.holder()}): wait for its end, or choose another --out"
        )
    if not lock.known:
        logger.warning("the file system of %s has no locks: take care that no second command works there", out)
    _held.add(place)
    try:
        remove_partial(place)
        yield
    finally:
        _held.discard(place)
        with suppress(OSError):  # the folder may be gone
            lock.release()
            for folder in made:
                folder.rmdir()


def holds_out_dir(command: Callable[[Config], Result]) -> Callable[[Config], Result]:
    """Let a command, which takes its options, work in its out folder alone, and tell what the machine does to it.

    Raises:
        UserError: also for a full disk and the like; see `told_in_a_sentence`.
    """

    @functools.wraps(command)
    def alone(config: Config) -> Result:
        out: Path = config.out  # type: ignore[attr-defined]
        with told_in_a_sentence(out), hold(out):
            return command(config)

    return alone


def prepare_out_dir(out: Path, owned: Sequence[str], *, overwrite: bool) -> None:
    """Make the out folder ready for a new run.

    Args:
        out: the folder; made if missing.
        owned: patterns of the files and folders that such a run makes, relative to `out`.
        overwrite: delete those of an earlier run. Nothing else in the folder is touched.

    Raises:
        UserError: the folder holds a run already, or cannot be made.
    """
    if not overwrite:
        require_unused(out, owned)
    for path in _found(out, owned):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the out folder {out}: {error.strerror}") from error


def require_unused(out: Path, owned: Sequence[str]) -> None:
    """Refuse an out folder that holds a run already; for a look before a long preparation.

    Raises:
        UserError: it does.
    """
    if found := _found(out, owned):
        raise UserError(f"{out} already holds a run ({found[0].name}): choose another --out, or pass --overwrite")


def _found(out: Path, owned: Sequence[str]) -> list[Path]:
    return sorted({path for pattern in owned for path in out.glob(pattern)})


def write_metrics(out: Path, metrics: Mapping[str, Any]) -> None:
    """Write where the final numbers were made to `environment.json`, and then themselves to `metrics.json`.

    That file is the last that a command writes: where it is, everything is.
    """
    for name, content in (("environment.json", environment()), ("metrics.json", metrics)):
        with atomic_write(out / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def environment() -> dict[str, str | int]:
    """Versions and hardware, which may move the last digits; nothing that names the machine or its user."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in ("videomac", "torch", "timm", "lightning", "numpy")}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else str(accelerator or "none"),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of equal rows as CSV, at once."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: Sequence[tuple[str, Any]]) -> str:
    """Return a two-column table for the terminal; floats with four significant digits."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        f"  {name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}" for name, value in rows
    )


def in_words(key: str) -> str:
    """The name of a number in `metrics.json` for people, who know the zero loss as the flat-patch baseline."""
    return key.replace("zero_loss", "flat-patch baseline").replace("_", " ")


def read_rows(path: Path, last_step: int) -> list[dict[str, str]]:
    """Read the complete rows of a `metrics.csv` up to a step."""
    with reading(path):
        table = csv.DictReader(io.StringIO(read_text(path), newline=""))
        rows = [row for row in table if None not in row.values() and None not in row]
        return [row for row in rows if row["step"].isdigit() and int(row["step"]) <= last_step]
