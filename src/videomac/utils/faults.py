"""What a machine does to a run (full disks, limits, killed processes), in one sentence instead of a traceback."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videomac.errors import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

GO_ON = "what was finished before is kept: mend that, then run the same command with --resume"

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_FILES = {errno.EMFILE, errno.ENFILE}
_PROCESSES = {errno.EAGAIN, errno.ENOMEM}
_BROKEN = {errno.EIO, getattr(errno, "ESTALE", errno.EIO)}
_MISSING = {errno.ENOENT, errno.ENOTDIR}

MEMORY = "the memory that this process may have is used up: free some, raise `ulimit -v`, or take smaller batches"
FILES = "too few files may be open at once: raise `ulimit -n`, or lower --workers"
SHARED_MEMORY = "/dev/shm, through which data processes hand over their batches, is full: enlarge it, or --workers 0"
PROCESSES = "no further process or thread could be started: raise `ulimit -u`, or lower --workers"
WORKER = "a process that reads the data was killed, perhaps for lack of memory: lower --workers, or free some"
PEER = "another process of this run has ended: its own message says why"

_WORDS = (
    (r"File too large", "a file has reached the size that is allowed here: raise `ulimit -f`"),
    (r"out of shared memory|shared memory|</?torch_\d+", SHARED_MEMORY),
    (r"DataLoader worker .*(exited unexpectedly|killed by signal)", WORKER),
    (r"Too many open files|items of ancdata", FILES),
    (r"can't start new thread|Resource temporarily unavailable", PROCESSES),
    (r"allocate memory|std::bad_alloc|bad allocation|not enough memory|unable to mmap|failed to map segment", MEMORY),
    (r"closed by peer|reset by peer|Broken pipe|remote process exited", PEER),
)
"""What libraries say where they raise no OSError, and what it means; the first that fits counts."""


OPEN_FILES = 256
"""Files that a command needs at once: libraries, videos, and three for each batch on its way from a data process."""


def require_open_files() -> None:
    """Raise the limit of open files if it is low and that is allowed.

    With too few of them data processes lose batches, for which a run would wait forever, and take videos for damaged.

    Raises:
        UserError: it stays too low.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        raise UserError(f"only {hard} files may be open at once, and {OPEN_FILES} are needed: raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


@contextmanager
def told_in_a_sentence(out: Path) -> Iterator[None]:
    """Turn what the machine does to the writers of a folder into a `UserError`; a programmer's mistake passes.

    Raises:
        UserError: the disk is full, the folder is gone or cannot be written, a limit is reached, a process was killed.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        sentence = describe(error, out)
        if sentence is None:
            raise
        raise UserError(f"{sentence}; {GO_ON}") from error
    except Exception as error:  # safetensors has an error of its own, of no common class
        if (found := re.search(r"os error (\d+)", str(error))) is None:
            raise
        sentence = describe(OSError(int(found[1]), os.strerror(int(found[1])), str(out)), out)
        if sentence is None:
            raise
        raise UserError(f"{sentence}; {GO_ON}") from error


def describe(error: BaseException, out: Path) -> str | None:
    """Say what an error means that the machine has caused, here or in a worker; None if it has not."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return MEMORY
        if isinstance(seen, OSError) and (found := _of_the_system(seen, out)) is not None:
            return found
        text = str(seen)
        for pattern, words in _WORDS:
            if isinstance(seen, RuntimeError | OSError) and re.search(pattern, text):
                return words
        seen = seen.__cause__ or seen.__context__
    return None


def _of_the_system(error: OSError, out: Path) -> str | None:
    """The same, of an error that carries a number of the system's."""
    number, file = error.errno, error.filename
    if number in _FULL:
        return SHARED_MEMORY if str(file).startswith("/dev/shm") else f"the disk that {file or out} lies on is full"
    if number == errno.EFBIG:
        return f"a file in {out} has reached the size that is allowed here: raise `ulimit -f`"
    if number in _FILES:
        return FILES
    if number in _PROCESSES:
        return PROCESSES if number == errno.EAGAIN else MEMORY
    if number in _BROKEN:
        return f"the disk that {file or out} lies on fails ({error.strerror})"
    if number in _REFUSED and _is_below(file, out):
        return f"{file or out} cannot be written ({error.strerror}): allow it"
    if number in _MISSING and (not out.exists() or _is_below(file, out)):
        return f"{file or out} is gone: it was moved or deleted while it was in use, or its disk was"
    return None


def _is_below(file: object, out: Path) -> bool:
    """Whether a file is in the out folder, or is the folder, or cannot be told."""
    if file is None or isinstance(file, int):
        return True
    path, folder = Path(os.fsdecode(file)).absolute(), out.absolute()  # type: ignore[arg-type]
    return path == folder or folder in path.parents or path in folder.parents
