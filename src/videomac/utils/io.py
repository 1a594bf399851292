"""Reading strangers' weight files safely and writing files all at once."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from videomac.errors import UserError


def read_torch(path: Path) -> Any:
    """Read a file written by `torch.save` on the CPU, without running any code that it may hold.

    Besides tensors and plain Python values only `argparse.Namespace` is accepted, in which many training scripts,
    the released VideoMAC code among them, keep their settings.

    `torch.load` does not look at the checksums that `torch.save` stores; they are compared here.

    Raises:
        UserError: no such file, not a complete torch file, a damaged one, or one that holds other Python objects.
    """
    if (damage := damaged_record(path)) is not None:
        raise UserError(f"{path} is damaged ({damage}): download or copy it again")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name a checkpoint file") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise UserError(f"{path} is damaged or not a torch checkpoint: download or copy it again") from None
        raise UserError(
            f"{path} holds Python objects ({found[1]}), which could run code and are not loaded: "
            "save its tensors alone, with torch.save(model.state_dict(), ...) or as safetensors"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes PyTorch raise whatever it trips over
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is damaged, incomplete or not a torch checkpoint ({reason}): download or copy it again"
        ) from None


def damaged_record(path: Path) -> str | None:
    """What in a zip archive, which torch files are, does not fit its checksum; None if all of it does, or it is none.

    Files of PyTorch before 1.6 are no archives and have no checksums.
    """
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
    except FileNotFoundError:
        return None
    # RuntimeError and NotImplementedError: a changed flag says that a record is encrypted, or packed in a strange way.
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None if name is None else f"{name} does not fit its checksum"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file on the CPU.

    Raises:
        UserError: no such file, or not a complete safetensors file.
    """
    try:
        return load_file(path)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} does not exist: check the path") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged, incomplete or not a safetensors file ({error}): download or copy it again"
        ) from None


PARTIAL = ".partial"
"""How the names of unfinished files end; they begin with a dot and the name of the file that they were to become."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    Readers, and a run that is killed in the middle, see the old file or the new one, never half of it, also after a
    power failure. What a kill leaves is removed by `remove_partial`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the permissions that open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # it may be the folder that has gone; what went wrong first is the error to tell
            temporary.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Remove what killed writers have left in a folder and below; nobody may be writing there."""
    for path in list(folder.rglob(f".*{PARTIAL}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a renaming on the disk, on systems that open folders."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system does it
            os.fsync(handle)
    finally:
        os.close(handle)
