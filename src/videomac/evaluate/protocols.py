"""The evaluation protocols as data: every setting that moves a number, one implementation for all of them.

Nothing heavy is imported here, so that `videomac eval davis --help` is instant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from videomac.config import require_frames_fit
from videomac.errors import UserError

Benchmark = Literal["davis", "vip", "jhmdb"]
ProtocolName = Literal["videomac", "crw", "dino", "cropmae", "vfs"]
Stride = int | Literal["native"]
Normalization = Literal["backbone", "imagenet", "dino"]
Window = Literal["square", "disc"]
EarlyContext = Literal["unique", "padded", "repeated"]
Ties = Literal["exact", "all"]


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """How frames become feature maps."""

    size: str
    """Frame size fed to the network: "native", "HxW", "shortS" (short side S, aspect kept), "shortS/M" (the long side
    cut down to a multiple of M), "longS/M" (long side S, the short side cut down). Bilinear, no antialiasing."""
    normalization: Normalization
    """Mean and standard deviation of the pixels: the backbone's, ImageNet's, or DINO's (0.228 for red)."""
    stage: int
    """Feature stage of a hierarchical network, 1 to 4; -1 is the last. Other networks: always the last layer."""
    stride: Stride
    """Pixels per feature cell: later strides of the network are set to 1 to reach it."""
    dilate: bool
    """Whether what follows a removed stride is dilated, so that every filter sees what it was trained on."""


@dataclass(frozen=True, kw_only=True)
class PropagationSettings:
    """How labels travel from frame to frame; see `videomac.propagate`."""

    context_frames: int
    """L: how many of the latest frames are searched besides frame 0."""
    topk: int
    """K: how many cells vote."""
    radius: int
    """R: reach of the search window in cells; 0 searches whole frames."""
    temperature: float
    """T of the softmax over the K similarities."""
    window: Window = "square"
    """Shape of the window: |dy|, |dx| <= R, or Euclidean distance < R."""
    first_frame_window: bool = True
    """Whether the window also limits the search in frame 0."""
    early_context: EarlyContext = "unique"
    """Context of the first frames: those there are; always L + 1, with copies of frame 0; or frame 0 twice."""
    ties: Ties = "exact"
    """Exactly K votes, or everything as similar as the K-th."""


@dataclass(frozen=True, kw_only=True)
class EvalProtocol(PropagationSettings, FeatureSettings):
    """Everything besides data and backbone that a propagation number depends on."""

    name: str
    """The preset that this began as."""
    label_resize: Literal["nearest", "bilinear", "area"]
    """How the first mask comes to the grid: nearest id; one channel an object, bilinear; or share of each cell."""
    class_normalization: bool
    """Stretch each upsampled channel to [0, 1] before the decision."""
    first_frame: Literal["truth", "resampled"]
    """Prediction of frame 0: the truth itself, or the truth brought to the grid and back."""
    joint_drawing: Literal["grid", "grid-truncated", "image"]
    """Joints as blobs of sigma 0.5 on the grid; the same with the rounding towards zero of the original code; or blobs
    of sigma 4 in the frame, no background channel, read at frame resolution."""
    joint_topk: int
    """How many of a joint's largest values are averaged to its position."""
    score_first_frame: bool
    """Whether PCK counts the first frame."""


_CRW = EvalProtocol(
    name="crw",
    size="native",
    normalization="imagenet",
    stage=3,
    stride=8,
    dilate=False,
    context_frames=20,
    topk=10,
    radius=12,
    temperature=0.07,
    window="disc",
    first_frame_window=False,
    early_context="padded",
    ties="exact",
    label_resize="bilinear",
    class_normalization=False,
    first_frame="resampled",
    joint_drawing="grid-truncated",
    joint_topk=3,
    score_first_frame=False,
)
_DINO = EvalProtocol(
    name="dino",
    size="short480/64",
    normalization="dino",
    stage=-1,
    stride=8,
    dilate=False,
    context_frames=7,
    topk=5,
    radius=12,
    temperature=0.1,
    window="square",
    first_frame_window=True,
    early_context="unique",
    ties="all",
    label_resize="nearest",
    class_normalization=True,
    first_frame="truth",
    joint_drawing="grid-truncated",
    joint_topk=5,
    score_first_frame=False,
)
_CROPMAE = replace(
    _CRW,
    name="cropmae",
    size="480x880",
    stage=-1,
    context_frames=20,
    topk=7,
    radius=20,
    temperature=0.7,
    joint_topk=5,
)
_VFS = replace(
    _CRW,
    name="vfs",
    size="short480",
    first_frame_window=True,
    early_context="repeated",
    label_resize="nearest",
    class_normalization=True,
    first_frame="truth",
    joint_drawing="image",
    joint_topk=5,
    score_first_frame=True,
)
_VIDEOMAC = replace(
    _DINO,
    name="videomac",
    size="short480",
    normalization="backbone",
    stage=3,
    stride=8,
    dilate=True,
    ties="exact",
    label_resize="area",
    class_normalization=False,
    joint_drawing="grid",
)

# What a protocol sets differently for the other benchmarks. DINO's authors ran DAVIS only: its VIP and JHMDB rows are
# its DAVIS settings at the paper's frame sizes.
_PRESETS: dict[str, dict[str, EvalProtocol]] = {
    "videomac": {
        "davis": _VIDEOMAC,
        "vip": replace(_VIDEOMAC, size="560x560"),
        "jhmdb": replace(_VIDEOMAC, size="320x320"),
    },
    "crw": {
        "davis": _CRW,
        "vip": replace(_CRW, size="560x560", context_frames=4),
        "jhmdb": replace(_CRW, size="320x320", context_frames=7),
    },
    "dino": {
        "davis": _DINO,
        "vip": replace(_DINO, size="560x560"),
        "jhmdb": replace(_DINO, size="320x320"),
    },
    "cropmae": {
        "davis": _CROPMAE,
        "vip": replace(_CROPMAE, size="long880/64", topk=10),
        "jhmdb": replace(_CROPMAE, size="320x320"),
    },
    "vfs": {
        "davis": _VFS,
        "vip": replace(_VFS, size="560x560", radius=16),
        "jhmdb": replace(_VFS, size="320x320", radius=5),
    },
}


def resolve(name: str, benchmark: Benchmark, overrides: Mapping[str, Any] | None = None) -> EvalProtocol:
    """A protocol with single settings replaced.

    Args:
        name: one of the presets.
        benchmark: "davis", "vip" or "jhmdb".
        overrides: settings by name; those that are None keep the preset's value.

    Returns:
        The complete protocol.

    Raises:
        UserError: unknown preset or setting, or a value out of range.
    """
    if name not in _PRESETS:
        raise UserError(f"unknown protocol {name!r}: choose one of {', '.join(_PRESETS)}")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    settings = {field.name for field in fields(EvalProtocol)} - {"name"}
    if unknown := given.keys() - settings:
        raise UserError(f"unknown setting {min(unknown)!r}: a protocol's settings are {', '.join(sorted(settings))}")
    protocol = replace(_PRESETS[name][benchmark], **given)
    for key, least in (("context_frames", 1), ("topk", 1), ("radius", 0), ("joint_topk", 1)):
        if getattr(protocol, key) < least:
            raise UserError(f"{key} must be at least {least}, but is {getattr(protocol, key)}")
    if protocol.temperature <= 0:
        raise UserError(f"temperature must be above 0, but is {protocol.temperature}")
    if protocol.stride != "native" and protocol.stride < 1:
        raise UserError(f"stride must be at least 1 or native, but is {protocol.stride}")
    require_frames_fit("size", frame_size(protocol.size, (480, 854)))
    return protocol


def changes(protocol: EvalProtocol, benchmark: Benchmark) -> dict[str, Any]:
    """The settings in which a protocol differs from the preset whose name it bears."""
    preset = asdict(_PRESETS[protocol.name][benchmark])
    return {key: value for key, value in asdict(protocol).items() if value != preset[key]}


def frame_size(rule: str, size: tuple[int, int]) -> tuple[int, int]:
    """Size of the network's input for frames of a size.

    Args:
        rule: see `FeatureSettings.size`.
        size: (height, width) of the frame.

    Returns:
        (height, width).

    Raises:
        UserError: the rule is not one.
    """
    if rule == "native":
        return size
    if match := re.fullmatch(r"(\d+)x(\d+)", rule):
        result = int(match[1]), int(match[2])
    elif match := re.fullmatch(r"(short|long)(\d+)(?:/(\d+))?", rule):
        fixed = size.index(min(size) if match[1] == "short" else max(size))
        side, multiple = int(match[2]), int(match[3] or 1)
        free = side * size[1 - fixed] / size[fixed]
        other = int(free // multiple) * multiple if match[3] else round(free)
        result = (side, other) if fixed == 0 else (other, side)
    else:
        raise UserError(f"size must be native, HxW, shortS, shortS/M or longS/M (such as short480/64), but is {rule!r}")
    if min(result) < 1:
        raise UserError(f"size {rule!r} makes {result[0]}x{result[1]} of a {size[0]}x{size[1]} frame: use a larger one")
    return result
