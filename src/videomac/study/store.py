"""The plan in a study's out folder: written once, and the same for every call that works there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from videomac.config import read_config
from videomac.errors import UserError
from videomac.study.plan import Study, as_study
from videomac.utils.file_lock import FileLock
from videomac.utils.io import PARTIAL, atomic_write
from videomac.utils.run_dir import LOCK, require_unused

RUN_FILES = (
    "runs",
    "table.md",
    "table.csv",
    "table.json",
    "study.png",
    "report.html",
    "config.yaml",
    "runs.csv",
    "metrics.json",
)
"""What a study makes in its out folder."""


def read_stored(out: Path) -> Study:
    """The plan of the study in an out folder.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return as_study(read_config(out, "study"), out / "config.yaml")


def settle(study: Study, out: Path) -> None:
    """Take an out folder for a study, or make sure that it is the same study's already.

    Raises:
        UserError: the folder holds something else, or a study that has been changed since.
    """
    path = out / "config.yaml"
    if path.is_file():
        if changed := _changed(read_stored(out), study):
            raise UserError(
                f"the study in {out} has been begun with another {changed}: undo that change, or choose another --out"
            )
        return
    require_unused(out, RUN_FILES)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:  # several parts may do this at once: each writes the same
        temporary.write_text(
            yaml.safe_dump({"command": "study", **study.as_plain()}, sort_keys=False), encoding="utf-8"
        )


@contextmanager
def hold_table(out: Path) -> Iterator[None]:
    """Write the table alone, and remove first what a killed call has left of one; the runs have locks of their own.

    Raises:
        UserError: another call writes it.
    """
    lock = FileLock(out / LOCK)
    if not lock.acquire():
        raise UserError(f"another command writes the table of {out} ({lock.holder()}): wait for its end")
    try:
        for left in out.glob(f".*{PARTIAL}"):
            left.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):  # the folder may be gone
            lock.release()


def _changed(before: Study, now: Study) -> str:
    """What differs between two studies, in words; empty if nothing does."""
    old, new = before.as_plain(), now.as_plain()
    for key in old:
        if key == "rows":
            rows = {row["name"]: row for row in old[key]}
            for row in new[key]:
                if rows.get(row["name"]) != row:
                    return f"row {row['name']!r}"
        if old[key] != new[key]:
            return key
    return ""
