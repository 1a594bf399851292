"""What the machine does to a run, in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from videomac.errors import UserError
from videomac.utils.faults import told_in_a_sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full; what was finished before is kept.*--resume"),
        (OSError(errno.EFBIG, "File too large"), "raise `ulimit -f`"),
        (OSError(errno.EMFILE, "Too many open files", "/dev/null"), "raise `ulimit -n`"),
        (OSError(errno.EIO, "Input/output error"), "fails"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "lower --workers"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "was killed"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                      "workers are out of shared memory."), "/dev/shm"),
        (RuntimeError("unable to write to file </torch_7_1_0>: No space left on device (28)"), "/dev/shm"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer"), "another process"),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), "ulimit -f"),
    ],
)  # fmt: skip
def test_what_a_machine_does_is_a_sentence(tmp_path: Path, error: Exception, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), told_in_a_sentence(tmp_path):
        raise error


def test_files_of_the_folder_that_are_gone_or_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.csv is gone"), told_in_a_sentence(tmp_path):
        (tmp_path / "metrics.csv").open("r+")
    with pytest.raises(UserError, match=r"a\.png cannot be written"), told_in_a_sentence(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "a.png"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), FileNotFoundError(2, "no", "/x/y")])
def test_a_programmers_mistake_passes(tmp_path: Path, error: Any) -> None:
    with pytest.raises(type(error)) as raised, told_in_a_sentence(tmp_path):
        raise error
    assert raised.value is error


def test_a_context_tells_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is full"), told_in_a_sentence(tmp_path):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
