"""`videomac propagate`: label the rest of a video."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tqdm import tqdm

from videomac.config import as_plain, read_config, save_config
from videomac.data.video import Video
from videomac.errors import UserError
from videomac.evaluate.images import write_ids
from videomac.evaluate.protocols import PropagationSettings
from videomac.labeling import confidence, pictures
from videomac.labeling.channels import Channels, Geometry, short_side_for, too_small
from videomac.labeling.config import FREE_ON_RESUME, PropagateConfig
from videomac.labeling.extractor import load_extractor
from videomac.labeling.formats import check_formats, read_labels, write_formats
from videomac.labeling.frames import chosen_frames, frame_size, open_video
from videomac.labeling.labels import Labels
from videomac.labeling.passes import MapStore, Propagator, merged
from videomac.utils.device import pick_device
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, table, write_metrics, write_rows

OWNED = (
    *("config.yaml", "metrics.json", "environment.json", "source.json", "masks", "work", "points.csv"),
    *("confidence.csv", "confidence.png", "overlay.mp4", "sheet.png", "coco.json", "dlc.csv", "labels.slp"),
)
VISIBLE = 0.1
"""Share of the votes below which a point counts as hidden."""
RADIUS = 0.2
"""Reach of the search window, as a share of the grid's short side: as far in the frame as 12 cells at 480 pixels."""


def propagate_video(
    video: str | Path, *, labels: str | Path | Sequence[str | Path], backbone: Any, out: str | Path, **options: Any
) -> dict[str, Any]:
    """Label the rest of a video from one or several labelled frames: the command `propagate` as a function.

    Args:
        video: video file, or folder of frames.
        labels: index PNG of the first frame, folder of index PNGs named by frame number, points as CSV or JSON, COCO,
            DeepLabCut or SLEAP; or several of these.
        backbone: what `videomac.evaluate.davis` takes.
        out: folder for `masks/`, `points.csv`, `overlay.mp4`, `sheet.png`, `confidence.csv` and `metrics.json`.
        **options: the other options of `PropagateConfig`, such as `start`, `stop`, `stage` or `formats`.

    Returns:
        What `metrics.json` holds: frames, frames per second, confidence, and the frames to label next.

    Raises:
        UserError: something is wrong with the video, the labels, the backbone or the out folder; or the video cannot be
            read to its end, after all that could be labelled has been written.
    """
    several = [labels] if isinstance(labels, str | Path) else list(labels)
    paths = [Path(path) for path in several]
    return run(PropagateConfig(video=Path(video), labels=paths, backbone=backbone, out=Path(out), **options))


@holds_out_dir
def run(config: PropagateConfig) -> dict[str, Any]:
    """Propagate, and write everything there is to see.

    Raises:
        UserError: see `propagate_video`.
        KeyboardInterrupt: the user has had enough; what is done has been written.
    """
    job = prepare(config)
    if (config.out / "metrics.json").is_file():
        print(f"{config.out} is complete already")
        done: dict[str, Any] = json.loads((config.out / "metrics.json").read_text())
        return done
    problems: list[str] = []
    begun, before = time.perf_counter(), len(job.rows())
    try:
        with _bar(None, "propagating") as bar:
            for step in label(job, problems):
                bar.total = step.total
                bar.update(step.done - bar.n)
    except KeyboardInterrupt:
        rows = job.rows()
        _write_tables(job, rows)
        cure = f"go on with the same command and --resume; {config.out} has what is done"
        raise KeyboardInterrupt(f"interrupted after {len(rows)} of {len(job.frames)} frames: {cure}") from None
    rows = job.rows()
    seconds = time.perf_counter() - begun
    metrics = finish(job, rows, (len(rows) - before) / seconds)
    shutil.rmtree(job.work)
    if problems:
        kept = f"{len(rows)} of {len(job.frames)} frames were labelled and are in {config.out}"
        raise UserError(f"{problems[0]}; {kept}: repair or convert the video, or --stop before that frame")
    return metrics


@dataclass(frozen=True)
class Job:
    """All that a call has opened and decided."""

    config: PropagateConfig
    video: Video
    labels: Labels
    propagator: Propagator
    frames: list[int]

    @property
    def channels(self) -> Channels:
        """How labels are drawn."""
        return self.propagator.channels

    @property
    def work(self) -> Path:
        """What an interrupted call needs to go on; deleted in the end."""
        return self.config.out / "work"

    def rows(self) -> dict[int, Any]:
        """What has been written of each frame: points, confidence, agreement."""
        path = self.work / "frames.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []  # a line without its end was cut off
        return {row["frame"]: row for row in map(json.loads, lines)}


@dataclass(frozen=True)
class Step:
    """A frame that a pass has just reached.

    Attributes:
        done: frames of both passes that are done.
        total: frames of both passes.
        frame: its number.
        maps: what this pass makes of the frame.
        row: the frame's labels, once they are decided: points, confidence, agreement; its mask has been written.
    """

    done: int
    total: int
    frame: int
    maps: torch.Tensor
    row: dict[str, Any] | None = None


def prepare(config: PropagateConfig) -> Job:
    """Open the video, the labels and the backbone, and make the out folder.

    Raises:
        UserError: see `propagate_video`.
    """
    assert config.labels is not None
    video = open_video(config.video)
    size = frame_size(video, config.start if config.start < len(video) else 0)
    labels = Labels()
    for path in config.labels:
        labels.add(read_labels(path, video, config.start, size), path)
    frames = chosen_frames(len(video), config.start, config.stop, config.every, labels.frames)
    labels.check(len(video), size, config.start, config.stop)
    check_formats(config.formats or [], labels)
    short_side, small = short_side_for(labels, size, config.stride)
    if config.short_side != "auto":
        short_side = config.short_side
        small = too_small(labels, short_side / min(size) / config.stride, config.stride)
    device = pick_device(config.device)
    extractor, name, weights = load_extractor(
        config.backbone, config.stage, config.stride, network=config.network, seed=config.seed, device=device
    )
    geometry = Geometry.fitted(size, short_side, extractor.stride)
    channels = Channels(labels.ids, labels.point_names, geometry)
    radius = max(1, round(RADIUS * min(geometry.grid))) if config.radius == "auto" else config.radius
    settings = PropagationSettings(
        context_frames=config.context_frames, topk=config.topk, radius=radius, temperature=config.temperature
    )
    _claim(replace(config, backbone=name), {"video_frames": len(video), "size": list(size), "labels": _digest(labels)})
    found = extractor.description
    print(
        f"{video.name}: {len(frames)} frames, labelled: {', '.join(map(str, labels.frames))}\n"
        f"{found['backbone']}, weights: {weights}, stage {found['stage']}, {found['channels']} channels; frames at "
        f"{geometry.size[1]}x{geometry.size[0]}, {geometry.grid[1]}x{geometry.grid[0]} cells, window of {radius} cells"
    )
    if small:
        print(f"warning: {small}", file=sys.stderr)
    if config.short_side == "auto" and short_side > 240:
        print(f"small labels: frames are taken at short side {short_side}, not 240 (slower)")
    return Job(config, video, labels, Propagator(video, labels, channels, extractor, settings, device), frames)


def _claim(config: PropagateConfig, source: Mapping[str, Any]) -> None:
    """Make the out folder ours, or see that it holds just this call begun.

    Raises:
        UserError: it holds something else.
    """
    path = config.out / "source.json"
    if not config.resume:
        prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
        save_config(config)
        path.write_text(json.dumps(source) + "\n")
        return
    before = read_config(config.out, "propagate")
    now = yaml.safe_load(yaml.safe_dump(as_plain(config)))
    changed = sorted(key for key in now if key not in FREE_ON_RESUME and before.get(key) != now[key])
    stored = json.loads(path.read_text()) if path.is_file() else {}
    changed += sorted(f"the {key.replace('_', ' ')}" for key in source if stored.get(key) != source[key])
    if changed:
        raise UserError(
            f"cannot resume {config.out}: {', '.join(changed)} changed since; take another --out, or --overwrite"
        )


def _digest(labels: Labels) -> str:
    digest = hashlib.sha256()
    for frame, mask in sorted(labels.masks.items()):
        digest.update(f"{frame}".encode() + mask.tobytes())
    digest.update(repr(sorted((frame, sorted(points.items())) for frame, points in labels.points.items())).encode())
    return digest.hexdigest()[:16]


def label(job: Job, problems: list[str]) -> Iterator[Step]:
    """Run both passes, and write masks and rows of all frames that are not there yet.

    Whoever has seen enough closes the iterator: what is done has been written.

    Args:
        job: what to do.
        problems: takes one sentence for every frame at which the video cannot be read on.
    """
    masks, labelled = job.config.out / "masks", job.labels.frames
    forwards = [frame for frame in job.frames if frame >= labelled[0]]
    backwards = [frame for frame in reversed(job.frames) if frame <= labelled[-1]]
    backwards = backwards if len(backwards) > 1 else []  # only the first frame is labelled
    forward_store, backward_store = MapStore(job.work / "forward"), MapStore(job.work / "backward")
    rows, total = job.rows(), len(forwards) + len(backwards)
    if job.labels.ids:
        masks.mkdir(exist_ok=True)
    there = {frame for frame in backwards if backward_store.path(frame).is_file()}
    count = len(there)
    for frame, maps in job.propagator.run(backwards, backward_store, there, problems):
        count += 1
        yield Step(count, total, frame, maps)
    done = {frame for frame, row in rows.items() if row["forward"]}
    count += len(done)
    passing = job.propagator.run(forwards, forward_store, done, problems, prune=True)
    coming = next(passing, None)
    with (job.work / "frames.jsonl").open("a") as file:
        for frame in job.frames:
            forward = coming[1] if coming is not None and coming[0] == frame else None
            backward = None if frame in rows else backward_store.find(frame)
            reached = forward if forward is not None else backward
            row = None
            if frame not in rows and reached is not None:
                row = _row(job, frame, forward, backward)
                file.write(json.dumps(row) + "\n")
                file.flush()
            count += forward is not None
            if reached is not None:
                yield Step(count, total, frame, reached, row)
            if forward is not None:
                coming = next(passing, None)


def _row(job: Job, frame: int, forward: torch.Tensor | None, backward: torch.Tensor | None) -> dict[str, Any]:
    """Decide a frame's labels, write its mask, and return the rest."""
    channels, labels = job.channels, job.labels
    maps, both = merged(channels, labels, frame, forward, backward)
    missing: list[int] = []
    if channels.ids:
        mask = labels.masks[frame] if frame in labels.masks else channels.mask(maps)
        missing = sorted({*channels.ids} - {*np.unique(mask).tolist()})
        partial = job.work / "mask.png"
        write_ids(partial, mask)
        partial.replace(job.config.out / "masks" / f"{frame:05d}.png")
    points: dict[str, Any] = {}
    for name in channels.points:
        if given := labels.points.get(frame, {}).get(name):
            points[name] = [given.x, given.y, int(given.visible), 1.0]
        else:
            x, y, share = channels.point(maps, name)
            points[name] = [round(x, 3), round(y, 3), int(share >= VISIBLE), round(min(share, 1.0), 4)]
    agree: dict[str, float] = {}
    if forward is not None and backward is not None and any(both.values()):
        agree = confidence.agreement(channels, forward, backward)
        agree = {name: value for name, value in agree.items() if both[name if name in channels.points else ""]}
    sure = confidence.certainty(channels, maps)
    row = {"frame": frame, "forward": forward is not None, "missing": missing, "points": points}
    return row | {"confidence": sure, "agreement": agree, "presence": confidence.presence(channels, maps)}


def _write_tables(job: Job, rows: Mapping[int, Any]) -> None:
    """Write points.csv and confidence.csv of the frames that are done."""
    if not rows:
        return
    if job.channels.points:
        columns = ("x", "y", "visible", "confidence")
        table_ = [
            {"name": name, "frame": frame, **dict(zip(columns, rows[frame]["points"][name], strict=True))}
            for frame in sorted(rows)
            for name in job.channels.points
        ]
        write_rows(job.config.out / "points.csv", table_)
    sure = [
        {"frame": frame, "label": name, "confidence": value, "agreement": rows[frame]["agreement"].get(name, "")}
        for frame in sorted(rows)
        for name, value in rows[frame]["confidence"].items()
    ]
    write_rows(job.config.out / "confidence.csv", sure)


def suggestions(job: Job, rows: Mapping[int, Any]) -> list[int]:
    """The frames to label next, the most helpful first, once their rows are there."""
    frames = sorted(rows)
    is_labelled = [frame in job.labels.frames for frame in frames]
    labelled = [index for index, known in enumerate(is_labelled) if known]
    if not labelled:
        return []
    doubt = confidence.doubt_of([rows[frame]["confidence"] for frame in frames], is_labelled)
    share = confidence.share_of([rows[frame]["presence"] for frame in frames], is_labelled)
    return [frames[index] for index in confidence.label_next(doubt, share, labelled, job.config.suggest)]


def finish(job: Job, rows: Mapping[int, Any], frames_per_second: float) -> dict[str, Any]:
    """Write tables, pictures and numbers of the frames that are done.

    Raises:
        UserError: there are none.
    """
    out = job.config.out
    if not rows:
        raise UserError(f"no frame of {job.video.name} could be read: check the video")
    _write_tables(job, rows)
    frames = sorted(rows)
    sure = [rows[frame]["confidence"] for frame in frames]
    suggested = suggestions(job, rows)
    _warn_of_lost(job, rows)
    confidence.plot(out / "confidence.png", frames, sure, job.labels.frames, suggested)
    with _bar(len(frames), "drawing") as bar:
        pictures.write_pictures(out, job.video, job.channels.geometry.frame, rows, job.config.every, bar.update)
    write_formats(job.config.formats or [], out, job.video, job.config.video, job.channels, job.labels, rows)
    metrics = {
        "frames": len(frames),
        "labelled_frames": len(job.labels.frames),
        "missing_frames": len(job.frames) - len(frames),
        "frames_per_second": round(frames_per_second, 2),
        "confidence": round(float(np.mean([list(row.values()) for row in sure])), 4),
        "label_next": suggested,
    }
    write_metrics(out, metrics)
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    if suggested:
        print(f"label next: frame {suggested[0]} would help most, then {', '.join(map(str, suggested[1:])) or 'none'}")
    print(f"masks, points and pictures are in {out}")
    return metrics


def _warn_of_lost(job: Job, rows: Mapping[int, Any]) -> None:
    """Say which objects are in no frame any more, unless the last labelled frame has them no more."""
    present = job.labels.masks[max(job.labels.masks)] if job.labels.masks else np.zeros(0)
    for number in job.channels.ids:
        seen = max(frame for frame, row in rows.items() if number not in row["missing"])
        if seen < max(rows) and number in present:
            after = min(frame for frame in rows if frame > seen)
            print(f"warning: object {number} is in no pixel from frame {after} on: label it there", file=sys.stderr)


def _bar(total: int | None, title: str) -> Any:
    """A bar with frames/s and the time left; silent where nobody watches."""
    return tqdm(total=total, desc=title, unit=" frames", disable=not sys.stderr.isatty(), dynamic_ncols=True)
