"""The options of `eval`, `score` and `compare`: import-light dataclasses whose docstrings are the help texts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from videomac.config import require_at_least, require_frames_fit, require_within
from videomac.errors import UserError
from videomac.evaluate.protocols import (
    Benchmark,
    EarlyContext,
    EvalProtocol,
    Normalization,
    ProtocolName,
    Stride,
    Ties,
    Window,
    resolve,
)
from videomac.utils.checks import check_values
from videomac.utils.frame_gap import FrameGap

FREE_ON_RESUME = frozenset(
    {"data", "out", "resume", "overwrite", "device", "batch_size", "videos", "backbone_name", "curve"}
)
"""Keys that may differ when an evaluation is continued, because the numbers do not depend on them."""

MOST_CLIPS = 1024
"""Clips that one score is the mean of."""


@dataclass
class EvalConfig:
    """What the three evaluations have in common."""

    data: Path
    """Folder of the data set, in the benchmark's own layout."""
    backbone: Any
    """Name of a timm network, folder or file of pre-trained weights, checkpoint, or raw-pixels."""
    out: Path
    """Folder for the numbers, predictions and pictures."""

    sections: ClassVar[dict[str, str]] = {
        "weights": "backbone",
        "protocol": "protocol",
        "device": "machine",
        "resume": "run",
        "split": "data set",
        "label_resize": "labels",
        "joint_drawing": "labels",
    }
    """First option of each section of the help."""
    benchmark: ClassVar[Benchmark]

    weights: Path | None = None
    """State dict (.pth, .pt, .safetensors) for a backbone that is named by its timm name."""
    pretrained: bool | None = None
    """Download timm's weights; unless given, only for names that have a tag, such as resnet50.a1_in1k."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run to evaluate."""
    seed: int = 0
    """Seed of the random weights of a backbone that has no others."""

    protocol: ProtocolName = "videomac"
    """Preset of all settings below; those that are given replace the preset's."""
    size: str | None = None
    """Frame size: native, HxW, shortS, shortS/M (long side cut to a multiple of M), or longS/M."""
    normalization: Normalization | None = None
    """Whose mean and standard deviation the pixels are normalised with."""
    stage: int | None = None
    """Feature stage of a hierarchical network, 1 to 4; -1 is the last."""
    stride: Stride | None = None
    """Pixels per feature cell (8, 16, 4, ...), or native."""
    dilate: bool | None = None
    """Dilate the layers after a removed stride."""
    context_frames: int | None = None
    """Latest frames searched besides frame 0 (L)."""
    topk: int | None = None
    """Cells that vote (K)."""
    radius: int | None = None
    """Reach of the search window in cells (R); 0 for whole frames."""
    temperature: float | None = None
    """Temperature of the softmax (T)."""
    window: Window | None = None
    """Shape of the search window."""
    first_frame_window: bool | None = None
    """Whether the window also limits the search in frame 0."""
    early_context: EarlyContext | None = None
    """Context of the first frames: those there are, filled up with copies of frame 0, or frame 0 twice."""
    ties: Ties | None = None
    """Exactly K votes, or everything as similar as the K-th."""

    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the backbone; similarities are always compared in float32."""
    batch_size: int = 8
    """Frames that go through the backbone at once."""

    resume: bool = False
    """Continue an interrupted evaluation with the next unfinished sequence."""
    overwrite: bool = False
    """Delete the evaluation in the out folder and start anew."""
    videos: bool = True
    """Write an overlay mp4 and a contact sheet of each sequence."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.data, self.out = Path(self.data), Path(self.out)
        self.weights = None if self.weights is None else Path(self.weights)
        if self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, but is {self.batch_size}")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: continue the evaluation, or replace it")
        self.resolved  # noqa: B018  (refuses a bad setting before anything is loaded)

    @property
    def resolved(self) -> EvalProtocol:
        """The protocol with the settings given replacing the preset's."""
        names = {field.name for field in fields(EvalProtocol)} - {"name"}
        given = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return resolve(self.protocol, self.benchmark, given)


@dataclass
class EvalDavisConfig(EvalConfig):
    """Propagate the first mask of each DAVIS sequence with a backbone's features, and score J&F."""

    benchmark: ClassVar[Benchmark] = "davis"

    split: str = "auto"
    """ImageSets file: 2017/val, 2017/train, 2016/val, ...; all for every sequence; auto takes the first there is."""
    resolution: str = "480p"
    """Folder of the frames and masks below JPEGImages and Annotations."""
    sequences: list[str] | None = None
    """Only these sequences, of those in the split."""
    label_resize: Literal["nearest", "bilinear", "area"] | None = None
    """How the first mask comes to the grid."""
    class_normalization: bool | None = None
    """Stretch each upsampled channel to [0, 1] before the decision."""
    first_frame: Literal["truth", "resampled"] | None = None
    """Prediction of frame 0: the truth, or the truth brought to the grid and back."""


@dataclass
class EvalVipConfig(EvalConfig):
    """Propagate the body parts of the first annotated frame of each VIP video, and score mIoU."""

    benchmark: ClassVar[Benchmark] = "vip"

    split: str = "auto"
    """File of video names in lists, such as val_videos; all for every video; auto takes val_videos if there is one."""
    sequences: list[str] | None = None
    """Only these videos, of those in the split."""
    label_resize: Literal["nearest", "bilinear", "area"] | None = None
    """How the first mask comes to the grid."""
    class_normalization: bool | None = None
    """Stretch each upsampled channel to [0, 1] before the decision."""
    first_frame: Literal["truth", "resampled"] | None = None
    """Prediction of frame 0, which is scored: the truth, or the truth brought to the grid and back."""


@dataclass
class EvalJhmdbConfig(EvalConfig):
    """Propagate the 15 joints of the first frame of each JHMDB video, and score PCK."""

    benchmark: ClassVar[Benchmark] = "jhmdb"

    split: str = "auto"
    """Number of the test split in splits (1, 2 or 3); all for every video; auto takes split 1 if there is one."""
    sequences: list[str] | None = None
    """Only these videos (class/video), of those in the split."""
    joint_drawing: Literal["grid", "grid-truncated", "image"] | None = None
    """How a joint is drawn and read: on the grid, with the original code's rounding, or in the frame."""
    joint_topk: int | None = None
    """How many of a joint's largest values are averaged to its position."""
    score_first_frame: bool | None = None
    """Whether PCK counts the first frame."""


@dataclass
class EvalCycleConfig:
    """Judge a backbone on videos without labels: pieces of one are planted in another and followed there and back.

    The backbone is compared with its own random initialisation, and with raw pixels, on the same clips.
    """

    data: Path
    """Folder of videos, or one video: best such as the backbone was not trained on."""
    backbone: str
    """Run, checkpoint, exported folder, or a timm network with weights."""
    out: Path
    """Folder for the numbers and pictures."""

    command: ClassVar[str] = "eval cycle"
    sections: ClassVar[dict[str, str]] = {"num_clips": "clips", "weights": "backbone", "device": "run"}

    num_clips: int = 16
    """How many clips, spread evenly over the videos."""
    frames: int = 8
    """Frames of a clip."""
    frame_gap: int | str = 3
    """Distance of a clip's frames: a number of frames, or a time such as 100ms."""
    short_side: int = 240
    """Short side of the frames that the network sees."""

    weights: Path | None = None
    """State dict (.pth, .pt, .safetensors) for a backbone that is named by its timm name."""
    pretrained: bool | None = None
    """Download timm's weights; unless given, only for names that have a tag, such as resnet50.a1_in1k."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run."""
    seed: int = 0
    """Seed of the random initialisation."""
    stage: int = 2
    """Feature stage of a hierarchical network, 1 to 4; -1 is the last."""
    stride: Stride = 8
    """Pixels per feature cell, or native."""

    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    batch_size: int = 8
    """Frames that go through the backbone at once."""
    curve: bool = False
    """Of a run: also score the checkpoints that it kept (`pretrain --keep_epochs`), and draw the curve."""
    resume: bool = False
    """Continue an interrupted evaluation with the next unfinished clip, or epoch of the curve."""
    overwrite: bool = False
    """Replace what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.data, self.out = Path(self.data), Path(self.out)
        self.weights = None if self.weights is None else Path(self.weights)
        require_at_least(self, 1, "batch_size")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: continue the evaluation, or replace it")
        if self.stride != "native":
            require_at_least(self, 1, "stride")
            require_at_least(self, 8 * self.stride, "short_side")
        require_at_least(self, 2, "frames")
        require_at_least(self, 0, "seed")
        require_within(self, 2, MOST_CLIPS, "num_clips")
        require_at_least(self, 32, "short_side")
        require_frames_fit("short_side", (self.short_side, self.short_side), self.batch_size)
        FrameGap(self.frame_gap)


@dataclass
class ScoreConfig:
    """What the three scores have in common."""

    data: Path
    """Folder of the data set, in the benchmark's own layout."""
    predictions: Path
    """Folder of the predictions, in the benchmark's own layout."""
    out: Path | None = None
    """Folder for metrics.json and the tables; they are only printed unless given."""
    overwrite: bool = False
    """Replace an earlier score in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form."""
        check_values(self)
        self.data, self.predictions = Path(self.data), Path(self.predictions)
        self.out = None if self.out is None else Path(self.out)


@dataclass
class ScoreDavisConfig(ScoreConfig):
    """Score masks that any tool predicted for DAVIS, exactly as the official evaluation does."""

    split: str = "auto"
    """ImageSets file, such as 2017/val; all for every sequence; auto takes the first there is."""
    resolution: str = "480p"
    """Folder of the masks below Annotations."""
    sequences: list[str] | None = None
    """Only these sequences, of those in the split."""


@dataclass
class ScoreVipConfig(ScoreConfig):
    """Score body parts that any tool predicted for VIP."""

    split: str = "auto"
    """File of video names in lists, such as val_videos; all for every video; auto takes val_videos if there is one."""
    sequences: list[str] | None = None
    """Only these videos, of those in the split."""


@dataclass
class ScoreJhmdbConfig(ScoreConfig):
    """Score joints that any tool predicted for JHMDB: one joint_positions.mat a video, as the data set has them."""

    split: str = "auto"
    """Number of the test split in splits (1, 2 or 3); all for every video; auto takes split 1 if there is one."""
    sequences: list[str] | None = None
    """Only these videos (class/video), of those in the split."""
    score_first_frame: bool = False
    """Whether PCK counts the first frame."""


@dataclass
class CompareConfig:
    """One table of several evaluations, with the paper's numbers beside them."""

    runs: list[Path]
    """Folders that `videomac eval` wrote."""
    out: Path | None = None
    """Folder for compare.csv and compare.md; the table is only printed unless given."""
    paper: bool = True
    """Show the paper's Table 1."""
    strict: bool = False
    """Refuse evaluations whose protocols differ instead of marking them."""
    overwrite: bool = False
    """Replace an earlier table in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form."""
        check_values(self)
        self.runs = [Path(run) for run in self.runs]
        self.out = None if self.out is None else Path(self.out)
