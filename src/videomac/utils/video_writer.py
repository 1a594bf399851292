"""Write frames as an mp4 or as a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def write_video(path: str | Path, frames: Iterable[UInt8[Tensor, "3 height width"]], fps: int | float = 25) -> None:
    """Write frames as a video file of good quality: H.264 (MPEG-4 where PyAV lacks x264), VP9 for .webm.

    Frames are taken one by one: from a tensor `[frames, 3, height, width]`, or from a generator.
    """
    codec = "libvpx-vp9" if Path(path).suffix.lower() == ".webm" else "libx264"
    if codec not in av.codecs_available:
        codec = "mpeg4"
    options = {"libx264": {"crf": "16"}, "libvpx-vp9": {"crf": "20", "b": "0"}}.get(codec, {"qscale": "2"})
    frames = iter(frames)
    first = next(frames)
    even = first.shape[-1] % 2 == 0 and first.shape[-2] % 2 == 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width = first.shape[-2:]
        stream.pix_fmt = "yuv420p" if even or codec == "mpeg4" else "yuv444p"  # halved colour needs even sides
        for frame in chain([first], frames):
            picture = frame.permute(1, 2, 0).contiguous().cpu().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_frames(folder: str | Path, frames: UInt8[Tensor, "frames 3 height width"], suffix: str = ".png") -> None:
    """Write frames as 00000.png, 00001.png, ... into a folder, which is made if need be; ".jpg" loses a little."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()):
        Image.fromarray(frame).save(Path(folder, f"{number:05d}{suffix}"), quality=95)
