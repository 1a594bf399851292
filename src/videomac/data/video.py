"""What a video is to the rest of the package: it has a name, a length and a rate, and reads frames by their numbers.

A `Video` knows its length without having been decoded and holds no open file, so a list of them is cheap to send to the
workers of a data loader. Frames are numbered from 0 in the order in which they are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jaxtyping import UInt8
from torch import Tensor

DEFAULT_FPS = 24.0


class VideoError(Exception):
    """A video that cannot be opened or decoded; the message is "<path>: <reason>"."""


class Video(Protocol):
    """What the rest of the package asks of a video."""

    @property
    def name(self) -> str:
        """The path below the folder that was searched, with forward slashes."""

    @property
    def fps(self) -> float:
        """Frames per second."""

    def __len__(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> UInt8[Tensor, "frames 3 height width"]:
        """Decode the frames with these numbers, in this order (channels-last in memory).

        Raises:
            VideoError: a frame cannot be read, or the frames differ in size.
            IndexError: a number is outside 0..len - 1.
        """


def reason(error: Exception) -> str:
    """Return what an error of the system, FFmpeg or Pillow says, without its class and numbers."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def version(path: Path) -> tuple[Path, int]:
    """The path and the time of its last change, so that what is remembered about it is not older than itself."""
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise VideoError(f"{path}: {reason(error)}") from error


def check_indices(indices: Sequence[int], video: Video) -> None:
    """Refuse frame numbers that a video does not have.

    Raises:
        ValueError: there is none.
        IndexError: one is outside 0..len - 1.
    """
    if not len(indices):
        raise ValueError(f"no frames asked for of {video}")
    if min(indices) < 0 or max(indices) >= len(video):
        raise IndexError(f"frames {min(indices)} to {max(indices)} asked for of {video}")
