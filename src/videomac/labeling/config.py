"""The options of `propagate` and `features`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from videomac.config import require_at_least, require_frames_fit
from videomac.errors import UserError
from videomac.utils.checks import check_values

FREE_ON_RESUME = frozenset({"out", "resume", "overwrite", "device", "formats", "suggest"})
"""Keys that may differ when a video is continued, because its labels do not depend on them."""
WITHOUT_PRETRAINING = (
    "a run of `videomac pretrain` on your clips is best; without one, tf_efficientnet_lite0.in1k with --stage 3 "
    "(downloads weights), or resnet18 with --stage 3 (random weights)"
)


@dataclass
class PropagateConfig:
    """Label the rest of a video: masks and points of one or several frames travel along a backbone's features."""

    video: Path
    """Video file, or folder of frames."""
    out: Path
    """Folder for the masks, points, pictures and tables."""

    command: ClassVar[str] = "propagate"
    sections: ClassVar[dict[str, str]] = {
        "labels": "labels",
        "backbone": "features",
        "context_frames": "search",
        "formats": "output",
        "device": "run",
    }

    labels: list[Path] | None = None
    """What is labelled (required): index PNG of the first frame, folder of index PNGs named by frame number, points as
    CSV or JSON, COCO JSON, DeepLabCut CSV or H5, SLEAP .slp; several may be given, such as masks and points."""
    start: int = 0
    """First frame."""
    stop: int | None = None
    """Frame to stop before; unless given, the video's end."""
    every: int = 1
    """Take every so-manieth frame; labelled frames are always taken."""

    backbone: Any = None
    """Whose features (required): a pre-training run, checkpoint or exported folder, a timm name, or raw-pixels. Best is
    a run of `videomac pretrain` on your clips. With nothing pre-trained, take tf_efficientnet_lite0.in1k with --stage 3
    (downloads weights) or resnet18 with --stage 3 (random weights)."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run."""
    seed: int = 0
    """Seed of the random weights of a backbone that has no others."""
    stage: int = 2
    """Feature stage of a hierarchical network, 1 to 4; -1 is the last. 2 is quick and suits short pre-trainings."""
    stride: int = 8
    """Pixels per feature cell."""
    short_side: int | Literal["auto"] = "auto"
    """Short side of the frames that the network sees; auto is 240, or more where labels are too small for it."""

    context_frames: int = 7
    """Latest frames searched besides the labelled one."""
    topk: int = 5
    """Cells that vote."""
    radius: int | Literal["auto"] = "auto"
    """Reach of the search window in cells; auto is a fifth of the short side, 0 is everywhere."""
    temperature: float = 0.1
    """Temperature of the softmax over the similarities of the cells that vote."""

    formats: list[Literal["coco", "dlc", "sleap"]] | None = None
    """Also write the labels as COCO JSON (extra [coco]), DeepLabCut CSV, SLEAP .slp (extra [sleap])."""
    suggest: int = 5
    """How many frames to suggest for labelling next."""

    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    resume: bool = False
    """Go on where an interrupted call stopped."""
    overwrite: bool = False
    """Replace what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.labels = [self.labels] if isinstance(self.labels, str | Path) else self.labels
        check_values(self)
        self.video, self.out = Path(self.video), Path(self.out)
        if not self.labels:
            raise UserError(
                "nothing is labelled: pass --labels with an index PNG, a folder of them, or a file of points"
            )
        self.labels = [Path(path) for path in self.labels]
        if self.backbone is None:
            raise UserError(f"no backbone is named: pass --backbone; {WITHOUT_PRETRAINING}")
        require_at_least(self, 0, "start", "suggest", "seed")
        require_at_least(self, 1, "every", "stride", "context_frames", "topk")
        if self.stop is not None and self.stop <= self.start:
            raise UserError(f"stop must be above start ({self.start}), but is {self.stop}")
        if self.short_side != "auto" and self.short_side < self.stride:
            raise UserError(f"short_side must be auto or at least one cell ({self.stride}), but is {self.short_side}")
        if self.short_side != "auto":
            require_frames_fit("short_side", (self.short_side, self.short_side))
        if self.radius != "auto" and self.radius < 0:
            raise UserError(f"radius must be auto or at least 0, but is {self.radius}")
        if self.temperature <= 0:
            raise UserError(f"temperature must be above 0, but is {self.temperature}")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite exclude each other: go on, or replace what is there")


@dataclass
class FeaturesConfig:
    """Show what a backbone sees: the features of a video as colours, several backbones side by side."""

    video: Path
    """Video file, or folder of frames."""
    out: Path
    """Folder for the video and the sheet."""

    command: ClassVar[str] = "features"

    backbone: list[str] | None = None
    """Whose features (required): one or several of what `propagate` takes."""
    start: int = 0
    """First frame."""
    stop: int | None = None
    """Frame to stop before; unless given, the video's end."""
    every: int = 1
    """Take every so-manieth frame."""
    network: Literal["online", "target"] = "online"
    """Which network of a pre-training run."""
    seed: int = 0
    """Seed of the random weights of a backbone that has no others."""
    stage: int = 2
    """Feature stage of a hierarchical network, 1 to 4; -1 is the last."""
    stride: int = 8
    """Pixels per feature cell."""
    short_side: int = 240
    """Short side of the frames that the network sees, and of the pictures."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    overwrite: bool = False
    """Replace what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.backbone = [self.backbone] if isinstance(self.backbone, str) else self.backbone
        check_values(self)
        self.video, self.out = Path(self.video), Path(self.out)
        if not self.backbone:
            raise UserError(f"no backbone is named: pass --backbone; {WITHOUT_PRETRAINING}")
        require_at_least(self, 0, "start", "seed")
        require_at_least(self, 1, "every", "stride")
        require_at_least(self, self.stride, "short_side")
        require_frames_fit("short_side", (self.short_side, self.short_side))
        if self.stop is not None and self.stop <= self.start:
            raise UserError(f"stop must be above start ({self.start}), but is {self.stop}")
