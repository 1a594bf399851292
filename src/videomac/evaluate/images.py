"""Frames and index masks on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from videomac.data.frame_folder import natural_order
from videomac.data.video import reason
from videomac.errors import UserError

Ids = npt.NDArray[np.uint8]
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_frame(path: Path) -> npt.NDArray[np.uint8]:
    """An RGB frame `[H, W, 3]`.

    Raises:
        UserError: the file is not a picture.
    """
    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


def read_ids(path: Path) -> Ids:
    """An index mask `[H, W]`: the indices of a palette picture, or the grey values.

    Raises:
        UserError: the file is not a picture, or has colours instead of indices.
    """
    with _opened(path) as image:
        if image.mode not in ("P", "L", "1"):
            raise UserError(
                f"{path} is an {image.mode} picture, but a mask must hold object ids: save it as palette (P) or 8-bit "
                "grey (L) PNG"
            )
        return np.array(image, dtype=np.uint8)


def write_ids(path: Path, ids: Ids) -> None:
    """Write an index mask as palette PNG."""
    image = Image.fromarray(ids).convert("P")
    image.putpalette(PALETTE.tobytes())
    image.save(path)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width), from the file's header.

    Raises:
        UserError: the file is not a picture.
    """
    with _opened(path) as image:
        return image.height, image.width


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder in the natural order of their names, as in training (2.jpg before 10.jpg)."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.name[0] != "."]
    return sorted(found, key=lambda path: natural_order(path.name))


def check_frames(name: str, frames: list[Path]) -> tuple[int, int]:
    """Size (height, width) of a sequence's frames.

    Raises:
        UserError: fewer than two frames, or frames of different sizes.
    """
    if len(frames) < 2:
        raise UserError(
            f"sequence {name} has {len(frames)} frame(s) in {frames[0].parent if frames else 'its folder'}: there is "
            "nothing to propagate to; leave it out of the split"
        )
    size = picture_size(frames[0])
    for path in frames[1:]:
        if (other := picture_size(path)) != size:
            raise UserError(
                f"{path} is {other[1]}x{other[0]} pixels but the first frame of {name} is {size[1]}x{size[0]}: all "
                "frames of a sequence must have the same size"
            )
    return size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; that it is damaged may show only when it is decoded, in the body of the `with`."""
    if not path.is_file():  # a pipe would never end
        raise UserError(f"{path} does not exist or is not a file: check the data set")
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise whatever it trips over
        raise UserError(f"{path} is not a readable picture ({reason(error)}): copy it again") from None


def _palette() -> npt.NDArray[np.uint8]:
    """The colours of the PASCAL VOC and DAVIS annotations: bits 0, 3, 6 of an id make red, 1, 4, 7 green, 2, 5 blue."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


PALETTE = _palette()
