"""Which file of labels is which, by its name and first words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videomac.data.video import Video
from videomac.errors import UserError
from videomac.labeling.channels import Channels
from videomac.labeling.labels import Labels, read_index_png, read_mask_folder, read_points


def read_labels(path: Path, video: str, start: int, size: tuple[int, int]) -> Labels:
    """Read any file of labels.

    Args:
        path: of the labels.
        video: name of the video, for files that name theirs.
        start: the frame that a single PNG is of, unless its name is a number.
        size: (height, width) of the video.

    Raises:
        UserError: there is no such file, or it is no labels.
    """
    if path.is_dir():
        return read_mask_folder(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: check the path of the labels")
    suffix = path.suffix.lower()
    if suffix == ".png":
        return Labels(masks={int(path.stem) if path.stem.isdigit() else start: read_index_png(path)})
    if suffix in (".csv", ".json"):
        return read_points(path)
    raise UserError(
        f"{path} is no kind of labels that is known: pass an index PNG, a folder of them, points (.csv, .json), COCO "
        "(.json), DeepLabCut (.csv, .h5) or SLEAP (.slp)"
    )


def write_formats(
    formats: Sequence[str], out: Path, video: Video, channels: Channels, labels: Labels, rows: Mapping[int, Any]
) -> None:
    """Write the labels for other tools."""
