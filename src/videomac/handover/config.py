"""The options of `export`, `figures` and `report`: import-light dataclasses whose docstrings are the help texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videomac.errors import UserError


@dataclass
class ExportConfig:
    """Write a pre-trained backbone for other tools, check the file, and report every tensor."""

    source: Path
    """Run folder, checkpoint (.ckpt), the authors' mac-*.pth, or exported folder."""
    out: Path
    """Folder for the weights, their model card (README.md) and the report (export.json)."""
    format: Literal["timm", "state_dict", "onnx", "torch_export"] = "timm"
    """safetensors and config.json for timm; a plain state dict; the features as ONNX; or as a torch.export program."""
    which: Literal["online", "target"] = "online"
    """Which network of a pre-training run: the trained one, or its moving average."""
    evaluations: list[Path] | None = None
    """Folders that `videomac eval` wrote for this backbone; their numbers go onto the model card."""
    push_to_hub: str | None = None
    """Also upload weights, card and report to this repository (user/name) of the Hugging Face hub."""
    overwrite: bool = False
    """Replace an earlier export in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.source, self.out = Path(self.source), Path(self.out)
        self.evaluations = None if self.evaluations is None else [Path(folder) for folder in self.evaluations]
        if self.out.resolve() == self.source.resolve():
            raise UserError(f"--out {self.out} is the source itself: choose another folder")


@dataclass
class FiguresConfig:
    """Draw the paper's figures from runs, a video and evaluations, as PNG, SVG and data."""

    runs: list[Path]
    """Folders of pre-training runs; the first one's network is shown (a checkpoint or mac-*.pth will do for it)."""
    out: Path
    """Folder for the figures."""
    video: Path | None = None
    """Video file or folder of frames for Fig. 2 (where reconstruction looks) and Fig. 8 (reconstructions)."""
    evaluations: list[Path] | None = None
    """Folders that `videomac eval` wrote, for Fig. 4 (propagated labels)."""
    pairs: int = 4
    """Pairs of frames in Fig. 8."""
    mask_ratio: float | None = None
    """Share of the patches to hide in Fig. 8, if not the one trained with; the paper shows 0.6."""
    image_size: int | None = None
    """Short side of the frames in pixels, if not the one trained with."""
    frame_gap: int = 1
    """Distance between the two frames of a pair, in frames."""
    masks: int = 40
    """Masks that Fig. 2 averages over."""
    seed: int = 0
    """Seed of the masks."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    overwrite: bool = False
    """Replace the figures in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.runs, self.out = [Path(run) for run in self.runs], Path(self.out)
        self.video = None if self.video is None else Path(self.video)
        self.evaluations = None if self.evaluations is None else [Path(folder) for folder in self.evaluations]
        if not self.runs:
            raise UserError("nothing to draw: name at least one run")
        for key in ("pairs", "frame_gap", "masks"):
            if getattr(self, key) < 1:
                raise UserError(f"{key} must be at least 1, but is {getattr(self, key)}")
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio must be above 0 and below 1, but is {self.mask_ratio}")


@dataclass
class ReportConfig:
    """Write one self-contained HTML page about a run, an evaluation, or any folder that a command made."""

    folder: Path
    """Folder of the run."""
    include: list[Path] | None = None
    """More folders for the same page, such as the evaluations of a pre-training run."""
    out: Path | None = None
    """Folder for report.html; that of the run unless given."""
    videos: int = 6
    """Videos of each folder that go into the page, spread evenly over their names."""
    overwrite: bool = False
    """Replace an earlier report.html."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        self.folder = Path(self.folder)
        self.include = None if self.include is None else [Path(folder) for folder in self.include]
        self.out = None if self.out is None else Path(self.out)
        if self.videos < 0:
            raise UserError(f"videos must be at least 0, but is {self.videos}")
