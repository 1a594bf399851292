"""Reading strangers' weight files safely and writing files all at once."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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

    Raises:
        UserError: no such file, not a complete torch file, or one that holds other Python objects.
    """
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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is damaged, incomplete or not a torch checkpoint ({reason}): download or copy it again"
        ) from None


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


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error.

    Readers, and a run that is killed in the middle, see the old file or the new one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the permissions that open() would have given.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
