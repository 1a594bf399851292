"""Made-up data sets in the layouts of DAVIS, VIP and JHMDB, with the truth known to the pixel.

One scene serves all three: textured figures that move by whole pixels over a textured background. A figure is an object
(DAVIS), its horizontal bands are parts (VIP), and fifteen points on the first one are joints (JHMDB). For tests and for
trying the commands without downloading anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io
from PIL import Image

from videomac.evaluate.images import write_ids

Frames = npt.NDArray[np.uint8]
BANDS = 5


@dataclass(frozen=True)
class Scene:
    """A video and its truth.

    Attributes:
        frames: uint8 RGB `[T, H, W, 3]`.
        objects: uint8 `[T, H, W]`, number of the figure seen at each pixel, 0 = background.
        parts: uint8 `[T, H, W]`, number of the figure's band, counted on over the figures.
        joints: float64 `[T, 15, 2]`, pixels (x, y) on the first figure, 0-based.
    """

    frames: Frames
    objects: Frames
    parts: Frames
    joints: npt.NDArray[np.float64]


def scene(
    num_frames: int = 8, size: tuple[int, int] = (96, 160), num_objects: int = 2, seed: int = 0, textured: bool = True
) -> Scene:
    """Figures side by side that drift, each with its own speed, without ever touching.

    Args:
        num_frames: length of the video.
        size: (height, width) of the frames, at least 32 x 32 for each figure.
        num_objects: figures, 1 to 4.
        seed: of positions, speeds and textures.
        textured: give figures and background a texture; otherwise every band has one flat colour of its own, from which
            the truth can be read back (`flat_colours`).

    Returns:
        The frames and the truth.

    Raises:
        ValueError: the frames are too small for so many figures.
    """
    height, width = size
    lane = width // max(num_objects, 1)
    if not 1 <= num_objects <= 4 or min(height, lane) < 32:
        raise ValueError(f"{num_objects} figures need 1 to 4 lanes of 32x32 pixels at least, not {size}")
    rng = np.random.default_rng(seed)
    colours = flat_colours(num_objects)
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    frames[:] = _texture(rng, height, width) if textured else colours[0]
    objects = np.zeros((num_frames, height, width), dtype=np.uint8)
    parts, joints = objects.copy(), np.empty((num_frames, 15, 2))
    side = min(height, lane) // 2
    shape = _figure(side)
    band = np.repeat(np.arange(BANDS), -(-side // BANDS))[:side, None].repeat(side, axis=1)
    points = np.argwhere(shape)[np.linspace(0, shape.sum() - 1, 15).round().astype(int), ::-1]
    for number in range(num_objects):
        texture = _texture(rng, side, side)
        tops = _bounce(rng, num_frames, height - side)
        lefts = number * lane + _bounce(rng, num_frames, lane - side)
        ids = (number * BANDS + band + 1).astype(np.uint8)
        for time, (top, left) in enumerate(zip(tops, lefts, strict=True)):
            window = np.s_[time, top : top + side, left : left + side]
            frames[window][shape] = texture[shape] if textured else colours[ids[shape]]
            objects[window][shape] = number + 1
            parts[window][shape] = ids[shape]
            if number == 0:
                joints[time] = points + np.array([left, top])
    return Scene(frames, objects, parts, joints)


def flat_colours(num_objects: int) -> npt.NDArray[np.uint8]:
    """Colours of background and bands, far apart, for scenes without texture: `[1 + bands, 3]`."""
    steps = np.array([0, 85, 170, 255], dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[: 1 + num_objects * BANDS]


def write_davis(root: Path, scenes: dict[str, Scene], *, year: int = 2017, suffix: str = ".jpg") -> Path:
    """Write scenes in DAVIS layout.

    Args:
        root: folder to make.
        scenes: by name of the sequence.
        year: 2017, object ids in palette PNGs; or 2016, one object in grey PNGs of 0 and 255.
        suffix: of the frames; ".png" keeps every pixel.

    Returns:
        `root`.
    """
    for name, video in scenes.items():
        for time, (frame, ids) in enumerate(zip(video.frames, video.objects, strict=True)):
            _save(root / "JPEGImages" / "480p" / name / f"{time:05d}{suffix}", frame)
            mask = _made(root / "Annotations" / "480p" / name / f"{time:05d}.png")
            if year == 2016:
                Image.fromarray((ids > 0).astype(np.uint8) * 255).save(mask)
            else:
                write_ids(mask, ids)
    _made(root / "ImageSets" / str(year) / "val.txt").write_text(
        "".join(f"{name}\n" for name in scenes), encoding="utf-8"
    )
    return root


def write_vip(root: Path, scenes: dict[str, Scene], *, suffix: str = ".jpg") -> Path:
    """Write scenes in VIP layout: annotated frames only, 25 video frames apart.

    Args:
        root: folder to make.
        scenes: by name of the video; at most 19 parts in all.
        suffix: of the frames.

    Returns:
        `root`.
    """
    for name, video in scenes.items():
        for time, (frame, ids) in enumerate(zip(video.frames, video.parts, strict=True)):
            _save(root / "Images" / name / f"{25 * time + 1:012d}{suffix}", frame)
            write_ids(_made(root / "Annotations" / "Category_ids" / name / f"{25 * time + 1:012d}.png"), ids)
    _made(root / "lists" / "val_videos.txt").write_text("".join(f"{name}\n" for name in scenes), encoding="utf-8")
    return root


def write_jhmdb(root: Path, scenes: dict[str, Scene]) -> Path:
    """Write scenes in JHMDB layout.

    Args:
        root: folder to make.
        scenes: by "class/video".

    Returns:
        `root`.
    """
    for name, video in scenes.items():
        for time, frame in enumerate(video.frames):
            _save(root / "Rename_Images" / name / f"{time + 1:05d}.png", frame)
        mat = _made(root / "joint_positions" / name / "joint_positions.mat")
        scipy.io.savemat(mat, {"pos_img": (video.joints + 1).transpose(2, 1, 0), "scale": np.ones(len(video.frames))})
        group, _, clip = name.partition("/")
        with _made(root / "splits" / f"{group}_test_split1.txt").open("a", encoding="utf-8") as file:
            file.write(f"{clip}.avi 2\nnot_there_{clip}.avi 1\n")
    return root


def _figure(side: int) -> npt.NDArray[np.bool_]:
    """Something like a person in a square: a head over a trunk with legs."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    head = x**2 + (y + 0.33) ** 2 < 0.17**2
    trunk = (abs(x) < 0.35) & (y > -0.2) & (y < 0.15)
    legs = (abs(abs(x) - 0.2) < 0.12) & (y >= 0.15) & (y < 0.48)
    figure: npt.NDArray[np.bool_] = head | trunk | legs
    return figure


def _bounce(rng: np.random.Generator, num_frames: int, room: int) -> npt.NDArray[np.int64]:
    """Positions in 0 to `room`, moving on by whole pixels and turning back at the ends."""
    speed = int(rng.integers(1, 4))
    path = (int(rng.integers(0, room + 1)) + speed * np.arange(num_frames)) % max(2 * room, 1)
    return np.asarray(np.minimum(path, 2 * room - path))


def _texture(rng: np.random.Generator, height: int, width: int) -> Frames:
    """A colour of its own, mottled coarsely and finely, different everywhere."""
    blocks = rng.integers(-25, 26, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    mixed = rng.integers(60, 196, 3) + blocks + rng.integers(-25, 26, (height, width, 3))
    texture: Frames = np.clip(mixed, 0, 255).astype(np.uint8)
    return texture


def _save(path: Path, frame: Frames) -> None:
    Image.fromarray(frame).save(_made(path), quality=95)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
