"""Whether a folder of clips is what its manifest says."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from videomac.data.manifest import MANIFEST, manifest_settings, read_manifest
from videomac.data.video import VideoError, reason
from videomac.data.video_file import opened
from videomac.errors import UserError
from videomac.prepare.collect import Collected
from videomac.prepare.folder import ClipFolder, clip_name
from videomac.prepare.progress import counted, duration, size

MOST_LINES = 100
"""Things wrong that are printed; beyond them only the number is."""


def check(clips: Path, workers: int) -> Collected:
    """Read every clip, compare it with its name, its sidecar and the manifest, and print what is wrong.

    Raises:
        UserError: the folder is not one of clips, its manifest is missing or damaged, or something is wrong.
    """
    if not clips.is_dir():
        raise UserError(f"no such folder of clips: {clips}")
    table = read_manifest(clips)
    folder = ClipFolder(clips, {key: value for key, value in manifest_settings(table).items()})
    if folder.made_with() is None:
        raise UserError(f"{clips} was not made by `videomac prepare`, or lacks its folder {folder.state.name}")
    wrong = 0
    for problem in _problems(folder, table, workers):
        wrong += 1
        if wrong <= MOST_LINES:
            print(problem)
    seconds = float((table["frames"].to_numpy() / table["fps"].to_numpy()).sum())
    bytes_ = int(table["bytes"].to_numpy().sum())
    found = f"{counted(table.num_rows, 'clip')}, {duration(seconds)}, {size(bytes_)}"
    if wrong:
        raise UserError(
            f"{clips}: {found}; {counted(wrong, 'thing')} wrong: remove the clips that are named, if any, and run the "
            "same command without --check, which makes them again"
        )
    print(f"{clips}: {found}; all is well")
    return Collected(table.num_rows, seconds, bytes_, 0, 0, 0, 0)


def _problems(folder: ClipFolder, table: pa.Table, workers: int) -> Iterator[str]:
    """One sentence for each thing that is wrong."""
    if folder.settings != folder.made_with():
        yield f"{MANIFEST}: tells of other settings than {folder.state.name} does"
    names = set(table["name"].to_pylist())
    expected = names | {Path(name).with_suffix(".json").name for name in names}
    for name in sorted(folder.files() - expected):
        yield f"{name}: stands in no row of {MANIFEST}"
    with (
        ThreadPoolExecutor(workers) as pool,  # reading and hashing release Python's lock
        tqdm(total=int(table["bytes"].to_numpy().sum()), desc="Checking", unit="B", unit_scale=True) as bar,
    ):
        for batch in table.to_batches(max_chunksize=1024):
            rows = batch.to_pylist()
            for row, problem in zip(rows, pool.map(partial(_problem_of_clip, folder), rows), strict=True):
                bar.update(row["bytes"])
                if problem is not None:
                    yield f"{row['name']}: {problem}"


def _problem_of_clip(folder: ClipFolder, row: dict[str, Any]) -> str | None:
    """What is wrong with a clip; None if nothing is."""
    path = folder.path / row["name"]
    try:
        data = path.read_bytes()
        if len(data) != row["bytes"]:
            return f"has {len(data):,} bytes, and {row['bytes']:,} by {MANIFEST}"
        if clip_name(data) != row["name"]:
            return "is damaged or was replaced: its content is not that of its name"
        sidecar = path.with_suffix(".json").read_bytes()
    except OSError as error:
        return f"cannot be read ({reason(error)})"
    if sidecar != folder.sidecar(row):
        return f"its sidecar tells other things than {MANIFEST}"
    return _problem_of_video(path, row, int(folder.settings["gop"]))


def _problem_of_video(path: Path, row: dict[str, Any], gop: int) -> str | None:
    try:
        with opened(path) as (_, stream):
            keys = [entry.is_keyframe for entry in stream.index_entries]
            shape = stream.height, stream.width
    except VideoError as error:
        return str(error).removeprefix(f"{path}: ")
    if len(keys) != row["frames"] or shape != (row["height"], row["width"]):
        return f"has {len(keys)} frames of {shape[0]}x{shape[1]}, and not what {MANIFEST} says"
    if not all(keys[::gop]):
        return f"has no key frame every {gop} frames"
    return None
