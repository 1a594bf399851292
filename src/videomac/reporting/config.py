"""The options of `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videomac.errors import UserError
from videomac.utils.checks import check_values


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
        check_values(self)
        self.folder = Path(self.folder)
        self.include = None if self.include is None else [Path(folder) for folder in self.include]
        self.out = None if self.out is None else Path(self.out)
        if self.videos < 0:
            raise UserError(f"videos must be at least 0, but is {self.videos}")
