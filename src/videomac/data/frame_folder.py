"""Folders of pictures as videos."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from videomac.data.video import DEFAULT_FPS, VideoError, check_indices, reason, version

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class FrameFolder:
    """A folder whose pictures are the frames of one video, in the natural order of their names (2.jpg before 10.jpg).

    Attributes:
        path: the folder.
        name: see `Video`.
        fps: 24, since pictures do not tell.

    Raises:
        VideoError: the folder cannot be read or holds no picture.
    """

    fps = DEFAULT_FPS

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        """List the pictures in `path`, opening none; without a name it is called after the folder."""
        self.path = Path(path)
        self.name = name if name is not None else self.path.name
        self._num_frames = len(_frame_names(*version(self.path)))
        if not self._num_frames:
            raise VideoError(f"{self.path}: holds no picture ({', '.join(FRAME_SUFFIXES)})")

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._num_frames

    def __repr__(self) -> str:
        """Name and length."""
        return f"FrameFolder({str(self.path)!r}, {len(self)} frames)"

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the pictures with these numbers; see `Video.read`."""
        check_indices(indices, self)
        names = _frame_names(*version(self.path))
        if max(indices) >= len(names):
            raise VideoError(f"{self.path}: holds {len(names)} pictures where there were {len(self)}")
        pictures = [_read_picture(self.path / names[number]) for number in indices]
        for number, picture in zip(indices, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise VideoError(
                    f"{self.path}: {names[number]} has {picture.shape[1]}x{picture.shape[0]} pixels where "
                    f"{names[indices[0]]} has {pictures[0].shape[1]}x{pictures[0].shape[0]}"
                )
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


@lru_cache(maxsize=1024)
def _frame_names(folder: Path, version: int) -> tuple[str, ...]:
    """The names of a folder's pictures in natural order."""
    try:
        return tuple(sorted(filter(is_frame, os.listdir(folder)), key=natural_order))
    except OSError as error:
        raise VideoError(f"{folder}: {reason(error)}") from error


def _read_picture(path: Path) -> np.ndarray:
    """A picture as RGB [H, W, 3]: grey and palette expanded, transparency dropped, 16-bit grey reduced to 8."""
    if not path.is_file():  # a pipe would never end
        raise VideoError(f"{path}: does not exist or is not a file")
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # Pillow would clip 16-bit grey values at 255
                grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.stack([grey] * 3, axis=-1)
            if image.mode == "P" and "transparency" in image.info:
                return np.asarray(image.convert("RGBA").convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's errors for bad files
        raise VideoError(f"{path}: {reason(error)}") from error


def is_frame(name: str) -> bool:
    """Whether a file of this name is a picture that is not hidden."""
    return not name.startswith(".") and name.lower().endswith(FRAME_SUFFIXES)


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that takes runs of digits as numbers: "2.jpg" < "10.jpg"; equal ones ("1", "01") by their letters."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name
