"""The options of `study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videomac.config import require_at_least, require_local
from videomac.errors import UserError
from videomac.utils.checks import check_values
from videomac.utils.share import parse_share


@dataclass
class StudyConfig:
    """Pre-train and judge every row of a study with every seed, and set them in one table; repeated, it goes on."""

    study: Path
    """The study: a YAML file with a base, rows, seeds, and how a run is judged; configs/studies has the paper's."""
    out: Path
    """Folder for all runs, the table, the figure and the page."""

    data: Path | None = None
    """Folder of videos to pre-train on (required, but with gather)."""
    benchmark: Path | None = None
    """Folder of the data set, in DAVIS layout, to judge on (required, but with gather)."""
    images: Path | None = None
    """Folder of images with train/ and val/, for a study that probes."""
    jobs: int = 1
    """Runs at a time on this machine; of several, each takes one thread."""
    part: str = "0/1"
    """The share of the runs that this call makes, as i/n with i from 0; for job arrays."""
    gather: bool = False
    """Make no run: set in the table what is there."""
    dry_run: bool = False
    """Make no run: print the plan, and how long it will take, from a few steps that are taken and thrown away."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.study, self.out = Path(self.study), Path(self.out)
        for key in ("data", "benchmark", "images"):
            if (value := getattr(self, key)) is not None:
                require_local(key, value)
                setattr(self, key, Path(value))
        require_at_least(self, 1, "jobs")
        parse_share("part", self.part)
        if self.gather and self.dry_run:
            raise UserError("gather and dry_run exclude each other: make the table, or print the plan")
        if not self.gather:
            for key in ("data", "benchmark"):
                if getattr(self, key) is None:
                    raise UserError(f"missing --{key}; `videomac study --help` lists the options")

    @property
    def share(self) -> tuple[int, int]:
        """`part` as two numbers."""
        return parse_share("part", self.part)
