"""Videos to read: encoded with every difficulty, made up in memory, and the plain way to decode them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from videomac.data.cache import cache_in_memory
from videomac.data.frame_folder import FrameFolder
from videomac.data.synthetic import moving_shapes
from videomac.data.video import Video, VideoError
from videomac.data.video_file import VideoFile
from videomac.utils.video_writer import write_frames

COUNT_IN_FRAMES = (
    *(".avi", ".mpg", ".mpeg", ".vob", ".mxf", ".dv"),
    *(".wmv", ".asf", ".flv", ".3gp", ".3g2", ".gif", ".ogv"),
)
B_FRAMES = {"bf": "3", "b_strategy": "0"}


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Take back what an encoder does to this thread: run as root, SVT-AV1 lets it run before all others."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def encode(
    path: Path,
    num_frames: int = 60,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    pix_fmt: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    first_time: int = 0,
    key_frames: tuple[int, ...] = (),
    container: str | None = None,
) -> Path:
    """Write a video with full control of what makes reading difficult; `times` and `first_time` in milliseconds."""
    # Some containers and codecs count in frames: in milliseconds these would have a thousand a second.
    in_frames = path.suffix in COUNT_IN_FRAMES or codec == "mpeg2video"
    unit, step = (Fraction(1, 25), 1) if in_frames else (Fraction(1, 1000), 40)
    frames, _ = moving_shapes(num_frames, size, seed=7)
    with scheduling_kept(), av.open(str(path), "w", format=container, options=container_options or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = unit
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = first_time + (times[number] if times else step * number)
            frame.time_base = unit
            if number in key_frames:
                frame.pict_type = 1
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """The reference: every frame in a row, by PyAV's defaults."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_reading(path: Path, num_frames: int | None = None) -> None:
    """Every single frame, all neighbours, scattered sets, repeats and any order equal the reference."""
    expected = decode_all(path)
    video = VideoFile(path)
    assert len(video) == len(expected) == (num_frames or len(expected))

    def same(indices: list[int]) -> None:
        frames = video.read(indices)
        assert frames.dtype == torch.uint8 and frames.shape[0] == len(indices) and frames.shape[1] == 3
        for frame, number in zip(frames, indices, strict=True):
            assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected[number]), f"frame {number} of {path.name}"

    for number in range(len(expected)):
        same([number])
    for number in range(0, len(expected) - 1, 3):
        same([number, number + 1])
    same(list(range(len(expected))))
    rng = random.Random(0)
    for _ in range(5):
        same([rng.randrange(len(expected)) for _ in range(6)])


def any_video(folder: Path, kind: str) -> Video:
    """Twelve frames as a file, a folder of pictures, or in memory."""
    if kind == "folder":
        write_frames(folder / "frames", moving_shapes(12, (40, 48))[0])
        return FrameFolder(folder / "frames")
    video: Video = VideoFile(encode(folder / "a.mp4", num_frames=12))
    return cache_in_memory([video], gib=0.1)[0] if kind == "memory" else video


@dataclass(frozen=True)
class Numbers:
    """A video of even colour whose frame n has the value `first` + n, some of whose frames cannot be read."""

    name: str
    num_frames: int
    first: int = 0
    broken: Sequence[int] = ()
    size: tuple[int, int] = (16, 16)
    fps: float = 10.0

    def __len__(self) -> int:
        return self.num_frames

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        assert all(0 <= index < self.num_frames for index in indices)
        if set(indices) & set(self.broken):
            raise VideoError(f"/data/{self.name}: cannot be decoded")
        values = torch.tensor([self.first + index for index in indices], dtype=torch.uint8)
        return values.view(-1, 1, 1, 1).repeat(1, 3, *self.size)
