"""Reading files that may be damaged: whatever that makes a reader trip over becomes one sentence."""

from __future__ import annotations

import csv
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videomac.errors import UserError

_STUMBLES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    *(csv.Error, struct.error),
)
"""What interpreting nonsense raises (UnicodeDecodeError, JSONDecodeError and RecursionError are among them)."""


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Say which file or folder is damaged, if what is in it makes its reader fail.

    Only what reads and interprets belongs into the block: our own mistakes in it would be taken for damage.

    Raises:
        UserError: the block raised what nonsense in a file makes code raise, or cannot read the file.
    """
    try:
        yield
    except (MemoryError, UserError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{error.filename or place} does not exist: {_CURE}") from error
    except _STUMBLES as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{place} is damaged, or was changed by hand ({what}): {_CURE}") from error


_CURE = "copy it again, or make it again with the command that wrote it"


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is not a file, not UTF-8, or cannot be read.
    """
    try:
        if not path.is_file():  # a pipe would never end
            raise UserError(f"{path} does not exist or is not a file: check the path")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
