"""Find every video below a folder, and choose a subset of so many hours."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from videomac.config import require_local
from videomac.data.frame_folder import FRAME_SUFFIXES, FrameFolder, is_frame, natural_order
from videomac.data.video import Video, VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.utils.frame_gap import FrameGap

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm"),
    *(".mts", ".m2ts", ".ts", ".mpg", ".mpeg", ".vob", ".mxf", ".dv"),  # camcorders, broadcast, DVD
    *(".3gp", ".3g2", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".gif"),
)
"""What FFmpeg reads, by name; whether a file really holds video shows when it is opened."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """What lies in a folder of videos and is not used.

    Attributes:
        name: path below the folder, with forward slashes; for files of other types, how many there are.
        reason: why it is not used.
        is_video: whether it looked like a video: a video file, or a folder of frames.
    """

    name: str
    reason: str
    is_video: bool = True


def find_videos(root: str | Path, frame_gap: int | str = 1, skipped: list[Skipped] | None = None) -> list[Video]:
    """Find every video below a folder: video files, folders of frames, at any depth, mixed.

    Pictures that lie together in one folder are one video. Hidden files and folders (".name") are left out, and so are
    label folders ("Annotations..." beside "JPEGImages", as in YouTube-VOS and DAVIS). Links are followed. A video that
    cannot be opened, or is too short for one pair, is reported once with its reason and skipped.

    Args:
        root: a folder, or a single video file.
        frame_gap: distance of the two frames of a pair, in frames, or as a time such as "40ms"; a video needs more
            frames than this (0 takes single pictures).
        skipped: takes what is not used: videos, label folders, and the number of files that are no videos by their
            names.

    Returns:
        The videos in natural order of their names, which are paths below `root`.

    Raises:
        UserError: there is no such folder, or no usable video in it.
    """
    require_local("the folder of videos", root)
    root = Path(root)
    skipped = [] if skipped is None else skipped
    if root.is_file():
        candidates = [(root, root.name)]
    elif root.is_dir():
        candidates = sorted(find_candidates(root, skipped), key=lambda candidate: natural_order(candidate[1]))
    else:
        raise UserError(f"no such folder or video file: {root}")
    open_ = partial(_open_candidate, FrameGap(frame_gap) if frame_gap else None)
    videos: list[Video] = []
    problems: list[str] = []
    with ThreadPoolExecutor(max_workers=8) as pool:  # opening files waits for the disk, and FFmpeg releases the lock
        opened = zip(pool.map(open_, candidates), candidates, strict=True)
        for video, (path, _) in tqdm(
            opened, "Looking at videos", len(candidates), unit=" videos", delay=3, leave=False
        ):
            if isinstance(video, Skipped):
                skipped.append(video)
                problems.append(f"{path}: {video.reason}")
            else:
                videos.append(video)
    if not videos:
        raise UserError(_nothing_found(root, candidates, problems))
    for problem in problems:
        logger.warning("skipped %s", problem)
    if problems:
        logger.warning("%d of %d videos in %s were skipped", len(problems), len(candidates), root)
    return videos


def find_candidates(root: Path, skipped: list[Skipped]) -> Iterator[tuple[Path, str]]:
    """(path, name) of everything below `root` that looks like a video; the rest is added to `skipped` at the end."""
    visited: set[str] = set()
    others: Counter[str] = Counter()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link that leads back
            subfolders.clear()
            continue
        visited.add(real)
        relative = Path(folder).relative_to(root)
        labels = [name for name in subfolders if "JPEGImages" in subfolders and name.startswith("Annotations")]
        for name in labels:
            logger.warning("left out %s: labels, not video", Path(folder, name))
            skipped.append(Skipped((relative / name).as_posix(), "labels, not video", is_video=False))
        subfolders[:] = sorted(name for name in subfolders if name not in labels and not name.startswith("."))
        if any(map(is_frame, files)):
            yield Path(folder), relative.as_posix() if relative.parts else root.resolve().name
        yield from ((Path(folder, name), (relative / name).as_posix()) for name in files if _is_video_file(name))
        others.update(Path(name).suffix.lower() or "without a suffix" for name in files if _is_other(name))
    if others:
        types = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        skipped.append(Skipped(f"{others.total()} other files", f"no videos by their names: {types}", is_video=False))


def _open_candidate(gap: FrameGap | None, candidate: tuple[Path, str]) -> VideoFile | FrameFolder | Skipped:
    path, name = candidate
    try:
        video = FrameFolder(path, name) if path.is_dir() else VideoFile(path, name)
    except VideoError as error:
        return Skipped(name, str(error).removeprefix(f"{path}: "))
    if gap is None or len(video) > gap.frames(video.fps):
        return video
    have = "1 frame" if len(video) == 1 else f"{len(video)} frames"
    return Skipped(name, f"has {have}, too few for pairs {gap} apart")


def _nothing_found(root: Path, candidates: Sequence[tuple[Path, str]], problems: Sequence[str]) -> str:
    if problems:
        return f"none of the {len(candidates)} videos in {root} can be used; the first: {problems[0]}"
    wanted = f"video files ({', '.join(VIDEO_SUFFIXES)}) and folders of frames ({', '.join(FRAME_SUFFIXES)})"
    suffixes = sorted({path.suffix.lower() for path in root.rglob("*") if path.is_file() and path.suffix})
    found = f"only files of type {', '.join(suffixes[:8])}" if suffixes else "nothing"
    return f"no video in {root}: looked for {wanted} at any depth and found {found}"


def _is_video_file(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(VIDEO_SUFFIXES)


def _is_other(name: str) -> bool:
    return not (name.startswith(".") or is_frame(name) or _is_video_file(name))


def select_hours(videos: Sequence[Video], hours: float, seed: int = 0) -> list[Video]:
    """Take whole videos at random until they add up to so many hours (the paper cuts Kinetics down to 5.58 hours).

    Which ones depends on the seed and the names alone, not on the order in which they are given; they are returned in
    that order. The last video taken may exceed the hours. If there is less, everything is returned, with a notice.

    Raises:
        UserError: `hours` is not positive.
    """
    if not hours > 0:
        raise UserError(f"hours must be positive, not {hours}")
    drawn = sorted(videos, key=lambda video: hashlib.sha256(f"{seed}/{video.name}".encode()).digest())
    taken: set[str] = set()
    total = 0.0
    for video in drawn:
        if total >= hours:
            break
        taken.add(video.name)
        total += len(video) / video.fps / 3600
    if total < hours:
        logger.warning("%.2f hours of video were asked for and there are %.2f: all of it is used", hours, total)
    return [video for video in videos if video.name in taken]
