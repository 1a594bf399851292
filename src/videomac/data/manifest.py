"""The table of a folder of prepared clips: what `videomac prepare` writes and training reads, in place of the clips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from videomac.errors import UserError
from videomac.utils.io import atomic_write

MANIFEST = "manifest.parquet"
"""Its name in the folder of clips."""
FORMAT = 1
"""Version of the columns and of what the clips promise."""
SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),  # HASH.mp4, in the folder itself
        pa.field("frames", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),  # of the clip's file
        pa.field("source", pa.string(), nullable=False),  # below the footage, for people: never a path to read
        pa.field("start", pa.float64(), nullable=False),  # seconds into the source
    ]
)
_KEY = b"videomac.prepare"


def write_manifest(folder: Path, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """Write the table of a folder, all at once.

    Args:
        folder: the folder of clips.
        rows: a value for each column of `SCHEMA`, clip by clip, in any order.
        settings: how the clips were made, as JSON takes it: `short_side` (pixels), `gop` (frames from one key frame to
            the next), and whatever else decides about their bytes.
    """
    metadata = {_KEY: json.dumps({"format": FORMAT, **settings}, sort_keys=True).encode()}
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["name"])), schema=SCHEMA.with_metadata(metadata))
    with atomic_write(folder / MANIFEST) as temporary:
        pq.write_table(table, temporary)


def read_manifest(folder: str | Path) -> pa.Table:
    """Read the table of a folder of prepared clips, and open nothing else.

    Returns:
        A table with the columns of `SCHEMA`, sorted by name; `manifest_settings` reads what else it says.

    Raises:
        UserError: there is none, it is damaged, or it is not one that this version understands.
    """
    path = Path(folder) / MANIFEST
    cure = f"run `videomac prepare` into {folder} again, which makes only what is missing"
    try:
        # As an open file: pyarrow takes a path for a data set, and reads columns out of "name=value" folders.
        with path.open("rb") as file, pq.ParquetFile(file) as parquet:
            _check_columns(path, parquet.schema_arrow, cure)
            table = parquet.read()
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {MANIFEST}: {cure}") from None
    except (pa.ArrowException, OSError) as error:
        # pyarrow's ArrowInvalid does not name the file, and is long.
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{path} is damaged or half-written ({reason}): {cure}") from None
    _check_rows(path, table, cure)
    return table


def manifest_settings(table: pa.Table) -> dict[str, Any]:
    """How the clips of a table were made: `format`, `short_side`, `gop`, and what else `videomac prepare` noted."""
    return dict(json.loads(table.schema.metadata[_KEY]))


def _check_columns(path: Path, schema: pa.Schema, cure: str) -> None:
    try:
        made = json.loads((schema.metadata or {})[_KEY])
        version = made["format"]
        known = version != FORMAT or (isinstance(made["short_side"], int) and isinstance(made["gop"], int))
    except (KeyError, TypeError, ValueError):
        version, known = FORMAT, False
    if version != FORMAT:
        raise UserError(
            f"{path} has format {version}, this version of videomac reads format {FORMAT}: "
            "use the version that wrote it, or prepare the footage again into another folder"
        )
    if not known:
        raise UserError(f"{path} was not written by `videomac prepare`: {cure}")
    if not schema.remove_metadata().equals(SCHEMA):
        missing = [field.name for field in SCHEMA if field.name not in schema.names]
        what = f"no column {missing[0]!r}" if missing else "other columns than expected"
        raise UserError(f"{path} has {what}: {cure}")


def _check_rows(path: Path, table: pa.Table, cure: str) -> None:
    if not table.num_rows:
        return
    names = table["name"].combine_chunks()
    # A name is a file in the folder itself: nothing else can be reached through a table from somewhere.
    possible = [
        not any(column.null_count for column in table.columns),
        pc.all(pc.match_substring_regex(names, r"^[0-9A-Za-z_-]+\.mp4$")).as_py(),
        *(pc.min(table[column]).as_py() > 0 for column in ("frames", "fps", "height", "width", "bytes")),
    ]
    if not all(possible):
        raise UserError(f"{path} holds rows that no clip can have: {cure}")
    if len(names) > 1 and not pc.all(pc.less(names[:-1], names[1:])).as_py():
        raise UserError(f"{path} is not sorted, or names a clip twice: {cure}")
