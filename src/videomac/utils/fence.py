"""The last fence: an exception that nobody foresaw becomes one sentence, and a log that holds the traceback."""

from __future__ import annotations

import os
import platform
import shlex
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from videomac.utils import faults


def of_the_machine(error: Exception) -> str | None:
    """What the machine lacks, if an exception says so: memory, files, processes, space on the disk; None otherwise."""
    seen: BaseException | None = error
    while seen is not None:  # a library that cannot be loaded raises ImportError for want of memory or files
        given = OSError(str(seen)) if isinstance(seen, ImportError) else seen
        sentence = (
            faults.describe(given, Path.cwd()) if isinstance(given, OSError | RuntimeError | MemoryError) else None
        )
        if sentence is not None:
            return sentence
        seen = seen.__cause__ or seen.__context__
    return None


def report(error: Exception, arguments: Sequence[str]) -> str:
    """Write the traceback to a log of its own, and return the sentence that names it.

    Each process writes a file of another name, readable by its user alone, so that those of a run of many do not
    overwrite each other.
    """
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    try:
        descriptor, path = tempfile.mkstemp(prefix="videomac-", suffix=".log")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"videomac {version('videomac')}, Python {platform.python_version()}, {platform.platform()}\n")
            file.write(f"videomac {shlex.join(arguments)}\n\n")
            file.write("".join(traceback.format_exception(error)))
    except OSError as full:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}, and no log could be written ({full.strerror})"
        return f"this should not happen ({what}; {place}): please report it with the command and this line"
    return f"this should not happen ({what}): please report it with the command and {path}, which says where it was"
