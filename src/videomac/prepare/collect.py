"""The tables of a folder of clips, made from the journals of all sources, whoever wrote them."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomac.data.manifest import write_manifest
from videomac.prepare.folder import TABLES, ClipFolder, writing
from videomac.prepare.journal import Journal
from videomac.prepare.looks import look_alikes
from videomac.utils.io import atomic_write


@dataclass(frozen=True)
class Collected:
    """What the tables hold.

    Attributes:
        clips: rows of the manifest.
        seconds: of footage in them.
        bytes: of their files.
        dropped: shots that became no clip.
        skipped: sources of which something could not be read.
        unfinished: sources that were begun and not read to their end, or whose clips are missing.
        strangers: clips that no source gave; they are in no table.
    """

    clips: int
    seconds: float
    bytes: int
    dropped: int
    skipped: int
    unfinished: int
    strangers: int


def collect(folder: ClipFolder, part: str) -> Collected:
    """Write `manifest.parquet`, `dropped.csv` and `skipped.csv`, one process at a time.

    Raises:
        UserError: the folder cannot be written.
    """
    lock = folder.tables_lock()
    with writing(folder.path):
        lock.wait()
        try:
            return _collect(folder, part)
        finally:
            lock.release()


def _collect(folder: ClipFolder, part: str) -> Collected:
    for table in TABLES:
        for left in folder.path.glob(f".{table}.*"):  # of a process that was killed while it wrote one
            left.unlink(missing_ok=True)
    # In this order: what is there by now stands in a journal already.
    files = folder.files()
    journals = folder.journals()
    rows, dropped = _rows(journals), _dropped(journals)
    shared = _shared(journals)
    alike = duplicates(journals) if folder.settings["drop_duplicates"] else {}
    for name, other in alike.items():
        row = rows.pop(name)
        folder.remove_clip(name)
        dropped.append({**_place(row["source"], row), "reason": f"looks like {other}"})
    present = {name: row for name, row in rows.items() if name in files}
    for name in shared & present.keys():  # whichever source came first, it names the one that the manifest names
        folder.write_sidecar(present[name], part)
    skipped = [{"name": each.source, "reason": each.problem} for each in journals if each.problem is not None]
    write_manifest(folder.path, list(present.values()), folder.settings)
    _write_table(folder.path / "dropped.csv", sorted(dropped, key=lambda row: (row["source"], row["start"])))
    _write_table(folder.path / "skipped.csv", skipped)
    absent = rows.keys() - present.keys()
    unfinished = [
        each
        for each in journals
        if (not each.finished and each.problem is None) or any(shot.name in absent for shot in each.shots)
    ]
    return Collected(
        clips=len(present),
        seconds=sum(row["frames"] / row["fps"] for row in present.values()),
        bytes=sum(row["bytes"] for row in present.values()),
        dropped=len(dropped),
        skipped=len(skipped),
        unfinished=len(unfinished),
        strangers=len({name for name in files if name.endswith(".mp4")} - rows.keys() - alike.keys()),
    )


def duplicates(journals: Iterable[Journal]) -> dict[str, str]:
    """Names of the clips that look like an earlier one, by source and start, with the name of that one."""
    rows, looks = _rows(journals), {shot.name: shot.looks for each in journals for shot in each.shots if shot.name}
    names = sorted(rows, key=lambda name: (rows[name]["source"], rows[name]["start"]))
    if not names:
        return {}
    return {names[one]: names[other] for one, other in look_alikes([looks[name] for name in names]).items()}


def _rows(journals: Iterable[Journal]) -> dict[str, dict[str, Any]]:
    """A row for each clip, by its name; where several sources gave it, of the first by name."""
    rows: dict[str, dict[str, Any]] = {}
    for journal in journals:  # in the order of their names, shots in the order of time
        for shot in journal.shots:
            if shot.name and shot.name not in rows:
                rows[shot.name] = shot.row(journal.source)
    return rows


def _shared(journals: Iterable[Journal]) -> set[str]:
    """Names of the clips that were found more than once."""
    times = Counter(shot.name for each in journals for shot in each.shots if shot.name)
    return {name for name, count in times.items() if count > 1}


def _dropped(journals: Iterable[Journal]) -> list[dict[str, Any]]:
    return [
        {"source": each.source, "start": shot.start, "frames": shot.frames, "reason": shot.reason}
        for each in journals
        for shot in each.shots
        if shot.reason
    ]


def _place(source: str, row: dict[str, Any]) -> dict[str, Any]:
    return {"source": source, "start": row["start"], "frames": row["frames"]}


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table as CSV; without rows, remove it."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
