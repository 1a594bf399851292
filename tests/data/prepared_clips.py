"""A small folder of clips as `videomac prepare` leaves them, without its work."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from videomac.data.manifest import write_manifest
from videomac.data.synthetic import moving_shapes

GOP = 12


def write_prepared(
    folder: Path, lengths: tuple[int, ...] = (30, 24, 41), size: tuple[int, int] = (64, 96), gop: int = GOP
) -> list[Path]:
    """Write clips of moving shapes, of so many frames, and their manifest; sorted by name."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, paths = [], []
    for number, length in enumerate(lengths):
        path = folder / f"{number:04x}.mp4"
        encode(path, moving_shapes(length, size, seed=number)[0].permute(0, 2, 3, 1).contiguous().numpy(), gop)
        found = {"name": path.name, "frames": length, "fps": 24.0, "height": size[0], "width": size[1]}
        rows.append({**found, "bytes": path.stat().st_size, "source": f"{number}.mov", "start": 0.0})
        paths.append(path)
    write_manifest(folder, rows, {"short_side": min(size), "gop": gop})
    return paths


def encode(path: Path, frames: np.ndarray, gop: int = GOP, **options: str) -> None:
    """Write [frames, height, width, 3] with a key frame every `gop` frames."""
    with av.open(str(path), "w", format="mp4") as container:
        forced = {"x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0", "bf": "0", **options}
        stream = container.add_stream("libx264", rate=24, options=forced)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
