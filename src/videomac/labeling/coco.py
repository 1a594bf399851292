"""COCO JSON: what CVAT and Label Studio write and read; masks as run lengths, points as keypoints."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videomac.data.video import Video
from videomac.errors import UserError
from videomac.evaluate.images import Ids, read_ids
from videomac.labeling.channels import Channels
from videomac.labeling.frames import picture_names
from videomac.labeling.labels import Labels, Point

POINTS = "points"
"""Category of the points."""


def mask_tools() -> Any:
    """The module of pycocotools that knows run lengths.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError:
        raise UserError("COCO needs pycocotools: pip install '.[coco]' in the checkout") from None
    return mask


def read_coco(path: Path, content: Any, video: Video, size: tuple[int, int]) -> Labels:
    """Masks and keypoints of a COCO file.

    Frames are known by the names of their pictures, or the number at their end. Objects are told apart by the attribute
    `track_id` or, without one, by category; keypoints of several animals are called `track.keypoint`.

    Args:
        path: of the file.
        content: of the file.
        video: that it should be of.
        size: (height, width) of the video.

    Raises:
        UserError: it is of another video, damaged, or holds nothing.
    """
    labels = Labels()
    try:
        categories = {entry["id"]: entry for entry in content["categories"]}
        frames = {entry["id"]: _frame(path, entry, video, size) for entry in content["images"]}
        annotations = [entry for entry in content["annotations"] if entry["image_id"] in frames]
        several = _several(annotations)
        for entry in annotations:
            frame, category = frames[entry["image_id"]], categories[entry["category_id"]]
            track = entry.get("track_id", (entry.get("attributes") or {}).get("track_id"))
            if several and track is None:
                raise UserError(
                    f"{path} has several annotations of category {category['name']} in one image and no track_id to "
                    "tell them apart: export tracks, or give each object its own category"
                )
            if entry.get("keypoints"):
                prefix = f"{track if track is not None else category['name']}." if several else ""
                _add_points(labels, frame, prefix, category["keypoints"], entry["keypoints"])
            if entry.get("segmentation"):
                number = int(entry["category_id"] if track is None else track)
                if not 1 <= number <= 255:
                    raise UserError(f"{path} has object {number}: ids go from 1 to 255, so number the objects anew")
                mask = labels.masks.setdefault(frame, np.zeros(size, np.uint8))
                mask[_decoded(entry["segmentation"], size)] = number
                labels.names[number] = str(category["name"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is no complete COCO file ({type(error).__name__}: {str(error)[:200]}): export it again"
        ) from None
    if not labels.frames:
        raise UserError(f"{path} holds no annotation: nothing is labelled")
    return labels


def _several(annotations: list[dict[str, Any]]) -> bool:
    """Whether an image has two annotations of one category."""
    pairs = Counter((entry["image_id"], entry["category_id"], bool(entry.get("keypoints"))) for entry in annotations)
    return max(pairs.values(), default=0) > 1


def _frame(path: Path, image: Mapping[str, Any], video: Video, size: tuple[int, int]) -> int:
    name, found = Path(str(image["file_name"])).name, (int(image["height"]), int(image["width"]))
    if found != size:
        raise UserError(
            f"{path} is of another video: its {name} is {found[1]}x{found[0]} pixels, "
            f"{video.name} is {size[1]}x{size[0]}"
        )
    if names := picture_names(video):
        if name not in names:
            raise UserError(f"{path} is of another video: there is no {name} in {video.name}")
        return names.index(name)
    numbers = re.findall(r"\d+", Path(name).stem)
    if not numbers:
        raise UserError(f"{path}: the name {name} does not end with a frame's number, such as frame_000120.png")
    return int(numbers[-1][:30])


def _decoded(segmentation: Any, size: tuple[int, int]) -> Any:
    """Run lengths, compressed or not, or polygons, as a bool mask.

    What pycocotools would write to, or allocate, without a look is looked at first: run lengths that do not fill the
    frame, and corners far outside it.
    """
    if not isinstance(segmentation, list):
        if tuple(segmentation["size"]) != size:
            raise ValueError(f"run lengths of a mask of {str(segmentation['size'])[:40]}")
        counts = segmentation["counts"]
        return _filled(_run_lengths(counts) if isinstance(counts, str) else counts, size)
    tools = mask_tools()
    for polygon in segmentation:
        corners = np.array(polygon, dtype=float)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError("a polygon without three corners")
        if not (np.abs(corners) <= 2 * max(size)).all():
            raise ValueError("a polygon with corners far outside the frame")
    return tools.decode(tools.merge(tools.frPyObjects(segmentation, *size))).astype(bool)


def _run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character, and a sixth that says that more follow.

    From the fourth run on, what is stored is the difference to the run before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("damaged run lengths")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def _filled(counts: Any, size: tuple[int, int]) -> Any:
    """Runs of background and object in turn, down the columns, as a bool mask."""
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        raise ValueError("run lengths that do not fill the frame")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[1], size[0]).T


def _add_points(labels: Labels, frame: int, prefix: str, names: list[str], values: list[float]) -> None:
    for name, x, y, seen in zip(names, values[::3], values[1::3], values[2::3], strict=True):
        if seen > 0 and not (np.isfinite(x) and np.isfinite(y)):
            raise ValueError(f"keypoint {name} at ({x}, {y})")
        labels.points.setdefault(frame, {})[prefix + name] = Point(float(x), float(y), seen > 0)


def write_coco(out: Path, video: Video, channels: Channels, labels: Labels, rows: Mapping[int, Any]) -> None:
    """Write `coco.json`: an image a frame, an annotation an object (compressed run lengths), and one of all points."""
    height, width = channels.geometry.frame
    names = picture_names(video)
    categories: list[dict[str, Any]] = [
        {"id": number, "name": labels.names.get(number, f"object {number}"), "supercategory": ""}
        for number in channels.ids
    ]
    points = max(channels.ids, default=0) + 1
    if channels.points:
        categories.append(
            {"id": points, "name": POINTS, "supercategory": "", "keypoints": list(channels.points), "skeleton": []}
        )
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for frame in sorted(rows):
        file_name = names[frame] if names else f"{frame:05d}.png"
        images.append({"id": frame + 1, "file_name": file_name, "height": height, "width": width})
        found = _masks(read_ids(out / "masks" / f"{frame:05d}.png"), channels) if channels.ids else []
        if channels.points:
            found.append(_keypoints(points, rows[frame]["points"]))
        for entry in found:
            annotations.append({"id": len(annotations) + 1, "image_id": frame + 1, "iscrowd": 0, **entry})
    content = {"info": {"description": f"labels of {video.name}"}, "licenses": [], "images": images}
    content |= {"categories": categories, "annotations": annotations}
    (out / "coco.json").write_text(json.dumps(content))


def _masks(ids: Ids, channels: Channels) -> list[dict[str, Any]]:
    tools, found = mask_tools(), []
    for number in channels.ids:
        if (ids == number).any():
            code = tools.encode(np.asfortranarray(ids == number).astype(np.uint8))
            numbers = {"area": float(tools.area(code)), "bbox": [float(side) for side in tools.toBbox(code)]}
            code = {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode()}
            found.append({"category_id": number, "segmentation": code, **numbers, "attributes": {"track_id": number}})
    return found


def _keypoints(category: int, points: Mapping[str, Any]) -> dict[str, Any]:
    flat = [value for x, y, visible, _ in points.values() for value in (x, y, 2 * visible)]
    xy = np.array([(x, y) for x, y, visible, _ in points.values() if visible]).reshape(-1, 2)
    low, high = (xy.min(0), xy.max(0)) if len(xy) else (np.zeros(2), np.zeros(2))
    box = [*low.tolist(), *(high - low).tolist()]
    return {
        "category_id": category,
        "keypoints": flat,
        "num_keypoints": len(xy),
        "bbox": box,
        "area": float(np.prod(high - low)),
        "segmentation": [],
    }
