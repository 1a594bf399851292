"""SLEAP's .slp files, through sleap-io."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from videomac.data.video import Video
from videomac.errors import UserError
from videomac.labeling.channels import Channels
from videomac.labeling.labels import Labels, Point


def sleap_io() -> Any:
    """The library.

    Raises:
        UserError: it is not installed.
    """
    try:
        import sleap_io
    except ImportError:
        raise UserError("SLEAP's files need sleap-io: pip install '.[sleap]' in the checkout") from None
    return sleap_io


def read_slp(path: Path, video: Video) -> Labels:
    """Instances of a .slp file; with several in a frame, points are called `track.node`.

    Raises:
        UserError: it cannot be read, holds nothing, or only other videos.
    """
    try:
        content = sleap_io().load_slp(str(path), open_videos=False)
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a readable .slp file ({error}): save it again in SLEAP") from None
    stem = Path(video.name).stem
    named = [entry for entry in content.videos if Path(str(entry.filename)).stem == stem]
    if not named and len(content.videos) > 1:
        raise UserError(
            f"{path} is of {len(content.videos)} videos, none of which is {video.name}: save one video alone"
        )
    wanted = named or content.videos
    frames = [frame for frame in content.labeled_frames if any(frame.video is entry for entry in wanted)]
    several = any(len(frame.instances) > 1 for frame in frames)
    labels = Labels()
    for frame in frames:
        points = labels.points.setdefault(int(frame.frame_idx), {})
        for number, instance in enumerate(frame.instances):
            animal = instance.track.name if instance.track is not None else f"animal{number}"
            prefix = f"{animal}." if several else ""
            for node, (x, y) in zip(instance.skeleton.node_names, instance.numpy(), strict=True):
                seen = bool(np.isfinite(x) and np.isfinite(y))
                points[prefix + node] = Point(float(x), float(y)) if seen else Point(0, 0, False)
    if not labels.points:
        raise UserError(f"{path} holds no labelled frame: nothing is labelled")
    return labels


def write_slp(path: Path, source: Path, channels: Channels, rows: Mapping[int, Any]) -> None:
    """Write points as predicted instances, an animal a track; those that are not visible are left out."""
    io = sleap_io()
    names = list(channels.points)
    several = all("." in name for name in names)
    split = [tuple(name.split(".", 1)) if several else ("", name) for name in names]
    skeleton = io.Skeleton(list(dict.fromkeys(node for _, node in split)))
    video = io.Video(filename=str(source), open_backend=False)
    tracks = {animal: io.Track(animal or "animal") for animal, _ in split}
    order = {node: number for number, node in enumerate(skeleton.node_names)}
    frames = []
    for frame in sorted(rows):
        instances = []
        for animal, track in tracks.items():
            xy, scores = np.full((len(order), 2), np.nan), np.zeros(len(order))
            for name, (owner, node) in zip(names, split, strict=True):
                x, y, visible, share = rows[frame]["points"][name]
                if owner == animal and visible:
                    xy[order[node]], scores[order[node]] = (x, y), share
            if np.isfinite(xy).any():
                score = float(scores.mean())
                instances.append(io.PredictedInstance.from_numpy(xy, skeleton, scores, score, track=track))
        frames.append(io.LabeledFrame(video=video, frame_idx=frame, instances=instances))
    io.save_slp(io.Labels(frames), str(path), verbose=False)
