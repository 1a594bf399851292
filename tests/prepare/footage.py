"""A small folder of footage with one of everything, and how a folder of clips is compared with another."""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
import shutil
from multiprocessing.context import ForkServerContext
from pathlib import Path

import torch

from videomac.data.synthetic import moving_shapes
from videomac.prepare.encode import index_first
from videomac.utils.video_writer import write_frames, write_video

CUT = 30
"""Frame at which the second shot of `two.mp4` begins."""


def scene(frames: int, seed: int, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return moving_shapes(frames, size, seed=seed)[0]


def write_footage(folder: Path) -> Path:
    """Five sources that can be read, one of them twice and one too short, one to the middle, one not at all."""
    (folder / "deep").mkdir(parents=True)
    write_video(folder / "two.mp4", torch.cat([scene(CUT, 1), scene(26, 2)]))
    write_video(folder / "deep" / "large.mkv", scene(40, 3, (320, 400)))
    write_frames(folder / "pictures", scene(20, 4))
    write_video(folder / "short.mp4", scene(5, 5))
    write_video(folder / "whole.mp4", scene(60, 6))
    shutil.copy(folder / "two.mp4", folder / "again.mp4")
    whole = index_first((folder / "whole.mp4").read_bytes())
    (folder / "whole.mp4").unlink()
    (folder / "half.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (folder / "broken.mp4").write_bytes(b"this is no video" * 100)
    return folder


def content(folder: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def left_over(clips: Path) -> list[str]:
    """What a command that has ended must not leave."""
    at_work = [*(clips / ".prepare" / "locks").glob("*"), *(clips / ".prepare" / "tmp").glob("*")]
    partial = [path for path in clips.rglob("*") if "probe-" in path.name or ".partial" in path.name]
    return [path.name for path in (*at_work, *partial)]


@functools.cache
def forkserver() -> ForkServerContext:
    """Where tests fork processes from: it has imported what they need, and no thread of it can hold a lock."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "videomac.prepare.command", "tests.prepare.footage"])
    return context
