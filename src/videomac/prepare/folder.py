"""The folder of clips: what lies where in it, who may write, and how a clip comes to be there whole or not at all.

HASH.mp4, HASH.json     a clip, named by its content, and what is known about it
manifest.parquet        all clips (`videomac.data.manifest`)
dropped.csv skipped.csv shots that became no clip, sources that could not be read, with the reason
.prepare/settings.json  how the clips are made
.prepare/sources/       a journal for each source
.prepare/locks/ tmp/    empty unless somebody is at work
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomac.data.manifest import MANIFEST
from videomac.errors import UserError
from videomac.prepare.journal import Journal, Shot, Source, read_journal
from videomac.utils.file_lock import FileLock
from videomac.utils.io import atomic_write

STATE = ".prepare"
TABLES = (MANIFEST, "dropped.csv", "skipped.csv")
_OWN = re.compile(r"[0-9a-f]{32}\.(mp4|json)")
_FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)


def clip_name(data: bytes) -> str:
    """The name of a clip with these bytes."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.mp4"


class ClipFolder:
    """A folder that `open` has made or found to be one of clips.

    Attributes:
        path: the folder.
        settings: how its clips are made.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Trust that it is one."""
        self.path, self.settings = path, dict(settings)
        self.state = path / STATE

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> ClipFolder:
        """Make the folder, or go on with one whose clips are made in the same way.

        Raises:
            UserError: it holds other things, or clips that are made differently, or it cannot be written.
        """
        folder = cls(path, settings)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            # Looked for first: clips of another process that is just beginning come after its settings. Hidden files
            # of the system (.DS_Store, .nfs...) are nobody's.
            others = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
            if others and folder.made_with() is None:
                raise UserError(f"{path} holds other things ({others[0]}): name an empty or new folder for the clips")
            lock = FileLock(folder.state / "locks" / "settings")
            lock.wait()
            try:
                folder._settle()
            finally:
                lock.release()
        return folder

    def _settle(self) -> None:
        """Note how clips are made, or see that it is noted so; one process at a time."""
        for left in (*self.state.glob(".settings.json.*"), *self.state.glob("probe-*")):  # of those that were killed
            left.unlink(missing_ok=True)
        have = self.made_with()
        if have is None:
            with atomic_write(self.state / "settings.json") as temporary:
                temporary.write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")
        elif have != self.settings:
            key = next(key for key in (*self.settings, *have) if have.get(key) != self.settings.get(key))
            raise UserError(
                f"the clips in {self.path} are made with {key} = {_said(have.get(key))}, and this call would make them "
                f"with {_said(self.settings.get(key))}: use the same options, or another folder"
            )
        (self.state / "sources").mkdir(exist_ok=True)
        _require_writable(self.state)

    def made_with(self) -> dict[str, Any] | None:
        """How the clips that are there are made; None if nothing is noted.

        Raises:
            UserError: the note is damaged.
        """
        try:
            return dict(json.loads((self.state / "settings.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise UserError(
                f"{self.state / 'settings.json'} is damaged: remove the folder {self.path}, or that file if you are "
                "sure that this call's options are those that the clips were made with"
            ) from None

    # Who may write ----------------------------------------------------------------------------------------------------

    @contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Be the only one who prepares this part; clean up after those who were killed.

        Raises:
            UserError: another process is at it.
        """
        lock = FileLock(self.state / "locks" / self.temporary(part).name)
        with writing(self.path):
            taken = lock.wait(seconds=3)  # whoever only looks whether it is held lets go at once
        if not taken:
            raise UserError(
                f"another `videomac prepare` ({lock.holder()}) is at work on part {part} of {self.path}: "
                "wait for it or stop it; several calls at once need different parts (--part 0/2 and --part 1/2)"
            )
        try:
            with writing(self.path):
                self._clean(lock)
            yield
        finally:
            shutil.rmtree(self.temporary(part), ignore_errors=True)
            lock.release()

    def temporary(self, part: str) -> Path:
        """Where the processes of a part keep what is not finished."""
        return self.state / "tmp" / f"part-{part.replace('/', '-of-')}"

    def source_lock(self, source: Source) -> FileLock:
        """The right to write a source's journal."""
        return FileLock(self.state / "locks" / f"source-{_key(source.name)}")

    def tables_lock(self) -> FileLock:
        """The right to write the tables."""
        return FileLock(self.state / "locks" / "tables")

    def _clean(self, own: FileLock) -> None:
        """Remove what killed processes left: of this part, and of any that nobody holds."""
        shutil.rmtree(self.state / "tmp" / own.path.name, ignore_errors=True)
        if not own.known:
            return
        for left in list((self.state / "tmp").glob("part-*")):
            lock = FileLock(self.state / "locks" / left.name)
            if left.name != own.path.name and lock.wait(seconds=0.3):  # whoever else looks has it for an instant
                shutil.rmtree(left, ignore_errors=True)
                lock.release()
        for lock in map(FileLock, list((self.state / "locks").glob("*"))):
            if lock.path.name != own.path.name and lock.acquire():
                lock.release()

    # What is there ----------------------------------------------------------------------------------------------------

    def files(self) -> set[str]:
        """Names of the clips and their sidecars that are there."""
        with os.scandir(self.path) as entries:
            return {entry.name for entry in entries if _OWN.fullmatch(entry.name)}

    def journal_path(self, source: Source) -> Path:
        """The journal of a source."""
        return self.state / "sources" / f"{_key(source.name)}.jsonl"

    def journals(self) -> list[Journal]:
        """All journals, in the order of their sources' names."""
        found = map(read_journal, (self.state / "sources").glob("*.jsonl"))
        return sorted((journal for journal in found if journal.identity), key=lambda journal: journal.source)

    # Writing ----------------------------------------------------------------------------------------------------------

    def has_clip(self, name: str, size: int) -> bool:
        """Whether a clip and its sidecar are there, as far as sizes tell."""
        clip = self.path / name
        return clip.is_file() and clip.stat().st_size == size and clip.with_suffix(".json").is_file()

    def publish(self, shot: Shot, source: Source, data: bytes, part: str) -> None:
        """Put a clip and its sidecar in place, the sidecar first; what is there already stays.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        with writing(self.path):
            self.write_sidecar(shot.row(source.name), part, keep=True)
            clip = self.path / shot.name
            if not self.has_clip(shot.name, len(data)):
                self._write(clip, data, part)

    def write_sidecar(self, row: Mapping[str, Any], part: str, *, keep: bool = False) -> None:
        """Write what is known about a clip beside it, unless that stands there; with `keep`, unless anything does."""
        path, data = (self.path / str(row["name"])).with_suffix(".json"), self.sidecar(row)
        if path.is_file() and path.stat().st_size and (keep or path.read_bytes() == data):
            return
        self._write(path, data, part)

    def sidecar(self, row: Mapping[str, Any]) -> bytes:
        """What the sidecar of a clip holds."""
        return (json.dumps({**row, **self.settings}, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()

    def remove_clip(self, name: str) -> None:
        """Remove a clip and then its sidecar."""
        (self.path / name).unlink(missing_ok=True)
        (self.path / name).with_suffix(".json").unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes, part: str) -> None:
        """Write under a temporary name, bring it to the disk, rename."""
        folder = self.temporary(part)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name}"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about a folder that cannot be written into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(
                f"no space is left for the clips in {path}: make room and run the same command again, which keeps what "
                "is done"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise UserError(f"{path} cannot be written ({error.strerror}): name a folder that can") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE):
            raise UserError(f"cannot write the clips into {path}: {error.strerror}") from error
        raise


def _require_writable(folder: Path) -> None:
    """A mount may be read-only and the folders there all the same."""
    probe = folder / f"probe-{uuid.uuid4().hex[:8]}"
    probe.touch()
    probe.unlink(missing_ok=True)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def _said(value: Any) -> str:
    return json.dumps(value) if value is not None else "nothing said of it"
