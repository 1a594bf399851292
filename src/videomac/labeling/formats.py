"""Which file of labels is which, and labels for other tools."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videomac.data.video import Video
from videomac.errors import UserError
from videomac.labeling.channels import Channels
from videomac.labeling.coco import mask_tools, read_coco, write_coco
from videomac.labeling.deeplabcut import is_deeplabcut, read_csv, read_h5, write_csv
from videomac.labeling.labels import Labels, is_number, read_index_png, read_mask_folder, read_points
from videomac.labeling.sleap import read_slp, sleap_io, write_slp


def read_labels(path: Path, video: Video, start: int, size: tuple[int, int]) -> Labels:
    """Read any file of labels.

    Args:
        path: of the labels.
        video: that they should be of.
        start: the frame that a single PNG is of, unless its name is a number.
        size: (height, width) of the video.

    Raises:
        UserError: there is no such file, or it is no labels.
    """
    if path.is_dir():
        return read_mask_folder(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: check the path of the labels")
    if not path.is_file():
        raise UserError(f"{path} is no ordinary file: pass a file or a folder of labels")
    suffix = path.suffix.lower()
    if suffix == ".png":
        return Labels(masks={int(path.stem) if is_number(path.stem) else start: read_index_png(path)})
    if suffix == ".slp":
        return read_slp(path, video)
    if suffix in (".h5", ".hdf5"):
        return read_h5(path)
    if suffix == ".csv":
        return read_csv(path) if is_deeplabcut(path) else read_points(path)
    if suffix == ".json":
        content = _json(path)
        return read_coco(path, content, video, size) if isinstance(content, dict) else read_points(path)
    raise UserError(
        f"{path} is no kind of labels that is known: pass an index PNG, a folder of them, points (.csv, .json), COCO "
        "(.json), DeepLabCut (.csv, .h5) or SLEAP (.slp)"
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): export it again") from None


def check_formats(formats: Sequence[str], labels: Labels) -> None:
    """Refuse, before any work, a format that cannot be written.

    Raises:
        UserError: its library is missing, or there are no points for a format that holds nothing else.
    """
    for name in formats:
        if name in ("dlc", "sleap") and not labels.point_names:
            raise UserError(f"--formats {name} holds points, and none is labelled: leave it out")
    if "coco" in formats:
        mask_tools()
    if "sleap" in formats:
        sleap_io()


def write_formats(
    formats: Sequence[str], out: Path, video: Video, source: Path, channels: Channels, labels: Labels,
    rows: Mapping[int, Any],
) -> None:  # fmt: skip
    """Write `coco.json`, `dlc.csv` and `labels.slp`, as far as they are asked for."""
    if "coco" in formats:
        write_coco(out, video, channels, labels, rows)
    if "dlc" in formats:
        write_csv(out, channels, rows)
    if "sleap" in formats:
        write_slp(out / "labels.slp", source, channels, rows)
