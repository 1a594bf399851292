"""A lock that belongs to a process and ends with it, also when it is killed, wherever the folder is shared."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class FileLock:
    """An exclusive lock on a file, which is made for it and holds who has it, for people.

    Attributes:
        path: the file.
        known: whether the file system knows locks; where it does not, `acquire` always succeeds.
    """

    def __init__(self, path: Path) -> None:
        """Take nothing yet."""
        self.path = path
        self.known = True
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Try to take the lock; returns whether it is held now."""
        while True:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(handle)
            except OSError as error:
                if error.errno in _BUSY:
                    os.close(handle)
                    return False
                if error.errno not in _UNKNOWN:
                    os.close(handle)
                    raise
                self.known = False
            if _is(handle, self.path):
                break
            os.close(handle)  # another process removed the file in the meantime: what is locked has no name any more
        self._handle = handle
        _taken.add(self)
        os.ftruncate(handle, 0)
        os.write(handle, f"pid {os.getpid()} on {socket.gethostname()}".encode())
        return True

    def wait(self, check: Callable[[], object] = lambda: None, seconds: float = float("inf")) -> bool:
        """Take the lock, if need be after others; returns whether it is held now.

        Args:
            check: called every now and then; what it raises ends the waiting.
            seconds: to wait at most.
        """
        end = time.monotonic() + seconds
        while not self.acquire():
            check()
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def holder(self) -> str:
        """Who holds the lock, in words."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Give the lock back and remove its file."""
        if self._handle is None:
            return
        _taken.discard(self)
        if os.name == "nt":  # an open file cannot be removed there
            os.close(self._handle)
        self.path.unlink(missing_ok=True)
        if os.name != "nt":
            os.close(self._handle)
        self._handle = None


_taken: set[FileLock] = set()


def _leave_to_the_parent() -> None:
    """Close what a forked process has inherited, which would hold the lock when its parent is gone."""
    for lock in _taken:
        if lock._handle is not None:
            os.close(lock._handle)
            lock._handle = None
    _taken.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        # Beyond the text, which others must be able to read.
        os.lseek(handle, 1 << 20, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
