"""The options of `figures`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from videomac.config import require_at_least, require_frames_fit, require_mask_ratio
from videomac.errors import UserError
from videomac.utils.checks import check_values
from videomac.utils.frame_gap import FrameGap


@dataclass
class FiguresConfig:
    """Draw the paper's figures from runs, a video and evaluations, as PNG, SVG and data."""

    runs: list[Path]
    """Folders of pre-training runs; the first one's network is shown (a checkpoint or mac-*.pth will do for it)."""
    out: Path
    """Folder for the figures."""

    command: ClassVar[str] = "figures"

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
    frame_gap: int | str = 1
    """Distance between the two frames of a pair: a number of frames, or a time such as 40ms."""
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
        check_values(self)
        self.runs, self.out = [Path(run) for run in self.runs], Path(self.out)
        self.video = None if self.video is None else Path(self.video)
        self.evaluations = None if self.evaluations is None else [Path(folder) for folder in self.evaluations]
        if not self.runs:
            raise UserError("nothing to draw: name at least one run")
        FrameGap(self.frame_gap)
        require_at_least(self, 1, "pairs", "masks")
        if self.image_size is not None:
            require_at_least(self, 1, "image_size")
            require_frames_fit("image_size", (self.image_size, self.image_size), 2 * self.pairs)
        if self.mask_ratio is not None:
            require_mask_ratio(self.mask_ratio)
