"""A made-up video with the truth, and options that make a call quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from videomac.evaluate.images import write_ids
from videomac.evaluate.synthetic import Scene
from videomac.labeling.labels import Labels, Point

QUICK: dict[str, Any] = {"backbone": "raw-pixels", "stride": 4, "short_side": 64, "suggest": 2}


@dataclass(frozen=True)
class Frames:
    """A video in memory."""

    frames: torch.Tensor
    name: str = "made-up"
    fps: float = 12.0

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        return self.frames[list(indices)]


def as_video(scene: Scene) -> Frames:
    return Frames(torch.from_numpy(scene.frames).permute(0, 3, 1, 2))


def joints_of(scene: Scene, frames: Sequence[int], count: int = 4) -> Labels:
    """Some of the first figure's joints, labelled in some frames."""
    return Labels(
        points={
            frame: {f"joint{k}": Point(*scene.joints[frame, 4 * k].tolist()) for k in range(count)} for frame in frames
        }
    )


def write_masks(folder: Path, scene: Scene, frames: Sequence[int]) -> Path:
    folder.mkdir(parents=True)
    for frame in frames:
        write_ids(folder / f"{frame:05d}.png", scene.objects[frame])
    return folder


def write_points(path: Path, labels: Labels) -> Path:
    lines = ["name,frame,x,y,visible"]
    for frame, points in labels.points.items():
        lines += [f"{name},{frame},{p.x},{p.y},{int(p.visible)}" for name, p in points.items()]
    path.write_text("\n".join(lines) + "\n")
    return path
