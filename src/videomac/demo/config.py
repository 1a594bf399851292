"""The options of `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videomac.utils.checks import check_values


@dataclass
class DemoConfig:
    """Pre-train a small ConvNet on three short clips and label one with it, on the CPU, in two to four minutes."""

    out: Path = Path("runs/demo")
    """Folder for everything the demo makes."""
    seed: int = 0
    """Seed of the network and of the training."""
    overwrite: bool = False
    """Replace what an earlier demo left in the out folder."""

    def __post_init__(self) -> None:
        """Put the path into its final form."""
        check_values(self)
        self.out = Path(self.out)
