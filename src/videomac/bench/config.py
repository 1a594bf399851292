"""The options of `bench`: an import-light dataclass whose docstrings are the help texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from videomac.config import require_at_least, require_frames_fit, require_within
from videomac.errors import UserError
from videomac.utils.checks import check_values


@dataclass
class BenchConfig:
    """Measure what pre-training costs here: visible blocks against the whole frame, a whole step, reading data."""

    out: Path
    """Folder for the table and the numbers."""

    command: ClassVar[str] = "bench"

    backbones: list[str] = field(default_factory=lambda: ["convnextv2_tiny", "resnet50", "resnet18"])
    """Networks whose encoder is measured, forward and backward: on blocks, masked, and dense."""
    steps: list[str] = field(default_factory=lambda: ["convnextv2_tiny"])
    """Networks of which a whole pre-training step is measured."""
    image_size: int = 224
    """Side of the square frames in pixels."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    batch: int = 8
    """Frames, or pairs of a step."""
    rounds: int = 9
    """Rounds, in each of which all kinds of run take their turn."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""
    threads: int = 1
    """Threads of the CPU; 0 leaves it to PyTorch."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the networks."""
    compile: bool = False
    """Run the networks through torch.compile, both sides."""
    seed: int = 0
    """Seed of the weights."""
    overwrite: bool = False
    """Replace what an earlier measurement left in the out folder."""

    def __post_init__(self) -> None:
        """Put the path into its final form and refuse what cannot work."""
        check_values(self)
        self.out = Path(self.out)
        require_at_least(self, 1, "image_size", "batch", "rounds")
        require_at_least(self, 0, "seed")
        require_within(self, 0, 1024, "threads")
        require_frames_fit("image_size", (self.image_size, self.image_size), self.batch)
        if not 0 < self.mask_ratio < 1:
            raise UserError(f"mask_ratio must be above 0 and below 1, but is {self.mask_ratio}")
