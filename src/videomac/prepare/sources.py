"""What there is to prepare, and which share of it a call takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from videomac.data.discovery import find_candidates
from videomac.data.frame_folder import is_frame
from videomac.errors import UserError
from videomac.prepare.journal import Source


def find_sources(raw: Path) -> list[Source]:
    """Every video file and folder of frames below a folder, the largest first; none is opened.

    Raises:
        UserError: there is no such folder, or nothing in it by its names.
    """
    if raw.is_file():
        candidates = [(raw, raw.name)]
    elif raw.is_dir():
        candidates = list(find_candidates(raw, []))
    else:
        raise UserError(f"no such folder of footage: {raw}")
    if not candidates:
        raise UserError(f"no footage in {raw}: no video file and no folder of frames at any depth, by their names")
    return sorted((_source(path, name) for path, name in candidates), key=lambda source: (-source.size, source.name))


def share_of(sources: Sequence[Source], part: int, parts: int) -> list[Source]:
    """The sources of one part: every `parts`-th, which gives all parts about the same number of bytes."""
    return list(sources[part::parts])


def _source(path: Path, name: str) -> Source:
    """Measure a source; what cannot be measured cannot be read either, and is listed then."""
    name = os.fsencode(name).decode("utf-8", "backslashreplace")  # a file's name need not be text, tables are
    try:
        if not path.is_dir():
            found = path.stat()
            return Source(path, name, found.st_size, found.st_mtime_ns)
        with os.scandir(path) as entries:
            pictures = [entry.stat() for entry in entries if is_frame(entry.name)]
        return Source(
            path, name, sum(each.st_size for each in pictures), max((each.st_mtime_ns for each in pictures), default=0)
        )
    except OSError:
        return Source(path, name, 0, 0)


def require_apart(raw: Path, clips: Path) -> None:
    """Refuse a folder of clips that is, holds or lies in the folder of footage.

    Raises:
        UserError: it does.
    """
    one, other = raw.resolve(), clips.resolve()
    if one == other:
        raise UserError(f"footage and clips cannot be in the same folder ({raw}): name another one for the clips")
    if one in other.parents or other in one.parents:
        where = "clips would lie within the footage" if one in other.parents else "footage lies within the clips"
        raise UserError(f"the {where} ({raw} and {clips}): name a folder beside it for the clips")
