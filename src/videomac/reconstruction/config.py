"""The options of `reconstruct`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from videomac.config import require_at_least, require_frames_fit, require_mask_ratio
from videomac.utils.checks import check_values
from videomac.utils.frame_gap import FrameGap


@dataclass
class ReconstructConfig:
    """Show what a pre-trained network reconstructs of a video: sheets of pairs and a side-by-side mp4."""

    checkpoint: Path
    """Run folder, checkpoint (.ckpt), or the authors' mac-*.pth."""
    video: Path
    """Video file, folder of frames, or folder of several videos."""
    out: Path
    """Folder for the pictures and clips."""

    command: ClassVar[str] = "reconstruct"

    pairs: int = 4
    """Pairs of frames on a video's sheet."""
    mask_ratio: float | None = None
    """Share of the patches to hide, if not the one trained with."""
    image_size: int | None = None
    """Short side of the frames in pixels, if not the one trained with; the long side keeps the frame's shape."""
    frame_gap: int | str = 1
    """Distance between the two frames of a pair: a number of frames, or a time such as 40ms."""
    seed: int = 0
    """Seed of the masks."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    overwrite: bool = False
    """Replace what an earlier call left in the out folder."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.checkpoint, self.video, self.out = Path(self.checkpoint), Path(self.video), Path(self.out)
        FrameGap(self.frame_gap)
        require_at_least(self, 1, "pairs")
        if self.image_size is not None:
            require_at_least(self, 1, "image_size")
            require_frames_fit("image_size", (self.image_size, self.image_size), 2 * self.pairs)
        if self.mask_ratio is not None:
            require_mask_ratio(self.mask_ratio)
