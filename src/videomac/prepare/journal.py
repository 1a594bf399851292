"""What is known about one source: which shots it has, what became of them, and whether that is all.

A journal is a file of lines of JSON. The first tells which file the source was, each further one a shot, the last one
how it ended. A line is on the disk before its clip gets its name, so that every clip is accounted for whenever the
process is killed; half a line at the end is dropped by whoever goes on.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """A source of footage, told apart from a later version of itself.

    Attributes:
        path: where it is.
        name: below the folder of footage, with forward slashes.
        size: bytes; of a folder of frames, of all of them.
        changed: time of the last change, in nanoseconds.
    """

    path: Path
    name: str
    size: int
    changed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What the first line of its journal says."""
        return {"source": self.name, "size": self.size, "changed": self.changed}


@dataclass(frozen=True, slots=True)
class Shot:
    """A shot, or a part of a long one.

    Attributes:
        start: seconds into the source.
        first: number of its first frame in the source, of those that can be read.
        frames: how many it has.
        name: of its clip; empty if none was made.
        reason: why none was made; empty if one was.
        fps: frames per second.
        height: pixels.
        width: pixels.
        bytes: of the clip.
        looks: 192 bits as hexadecimal digits, which hardly differ for clips that look alike.
    """

    start: float
    first: int
    frames: int
    name: str = ""
    reason: str = ""
    fps: float = 0.0
    height: int = 0
    width: int = 0
    bytes: int = 0
    looks: str = ""

    def row(self, source: str) -> dict[str, Any]:
        """The row of the manifest."""
        keys = ("name", "frames", "fps", "height", "width", "bytes", "start")
        return {**{key: getattr(self, key) for key in keys}, "source": source}


@dataclass
class Journal:
    """A journal, as far as it was written.

    Attributes:
        identity: of the source; empty if not even the first line is there.
        shots: in order.
        seconds: of footage; None if the source was not read to its end.
        problem: what was wrong with the source; None if nothing was.
        passing: the problem may pass: the source is read again next time.
    """

    identity: dict[str, Any]
    shots: list[Shot]
    seconds: float | None = None
    problem: str | None = None
    passing: bool = False

    @property
    def source(self) -> str:
        """The name of the source."""
        return str(self.identity.get("source", ""))

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be read."""
        return self.seconds is not None and not self.passing


def read_journal(path: Path) -> Journal:
    """Read a journal; one that is missing or torn is read as far as it goes."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        lines = []
    journal = Journal({}, [])
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if not number:
                journal.identity = entry
            elif "end" in entry:
                journal.seconds, journal.problem, journal.passing = entry["end"], entry["problem"], entry["passing"]
            else:
                journal.shots.append(Shot(**entry))
        except (ValueError, TypeError, KeyError):
            break  # a disk that lost power may hold anything behind this line
    return journal


class JournalWriter:
    """Goes on with a journal.

    Attributes:
        shots: what it holds so far.
    """

    def __init__(self, path: Path, source: Source, shots: list[Shot]) -> None:
        """Keep these shots, and nothing else, of what the file holds."""
        self._identity, self.shots = source.identity, list(shots)
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._keep(len(shots))

    def __enter__(self) -> JournalWriter:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def put(self, number: int, shot: Shot) -> None:
        """Note the shot with this number; when this returns, it is on the disk. What was noted otherwise is cut off."""
        if number < len(self.shots) and self.shots[number] == shot:
            return
        if number < len(self.shots):
            self._keep(number)
        self.shots.append(shot)
        self._write(_entry(shot))

    def finish(self, seconds: float, problem: str | None, *, passing: bool) -> None:
        """Note that the source was read as far as it can be."""
        self._write({"end": round(seconds, 3), "problem": problem, "passing": passing})

    def _keep(self, count: int) -> None:
        del self.shots[count:]
        text = "".join(map(_line, [self._identity, *map(_entry, self.shots)])).encode()
        self._file.seek(0)
        if self._file.read(len(text)) != text:
            self._file.seek(0)
            self._file.write(text)
        self._file.seek(len(text))
        self._file.truncate()

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(_line(entry).encode())
        self._file.flush()
        os.fsync(self._file.fileno())


def _entry(shot: Shot) -> dict[str, Any]:
    return {key: value for key, value in asdict(shot).items() if value not in ("", 0) or key in ("start", "first")}


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
