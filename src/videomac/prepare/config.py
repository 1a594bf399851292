"""The options of `prepare`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videomac.config import require_local
from videomac.errors import UserError
from videomac.utils.checks import check_values
from videomac.utils.share import parse_share


@dataclass
class PrepareConfig:
    """Cut footage at scene changes into clips that read fast, and list them; run again, it makes what is missing."""

    raw: Path
    """Folder of footage: video files and folders of frames, at any depth."""
    clips: Path
    """Folder for the clips, of their own; many processes and machines may write into one."""

    part: str = "0/1"
    """The share of the footage that this call prepares, as i/n with i from 0; for job arrays."""
    workers: int | Literal["auto"] = "auto"
    """Processes on this machine, each on its own core; auto takes as many as this call may use."""
    ray: str | None = None
    """Spread the work over a Ray cluster: auto (the one that this machine belongs to), local or host:port."""
    drop_static: bool = False
    """Leave out shots in which nothing moves."""
    drop_duplicates: bool = False
    """Leave out clips that look like another one."""
    check: bool = False
    """Make nothing: read every clip, compare it with what is noted about it, and list what is wrong."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.raw, self.clips = Path(self.raw), Path(self.clips)
        for key in ("raw", "clips"):
            require_local(key, getattr(self, key))
        parse_share("part", self.part)
        if self.workers != "auto" and self.workers < 1:
            raise UserError(f"workers must be 'auto' or at least 1, but is {self.workers}")
        if self.ray is not None:
            self._check_ray(self.ray)

    def _check_ray(self, address: str) -> None:
        if not re.fullmatch(r"auto|local|[^\s/]+:[0-9]{1,5}", address):
            raise UserError(f"ray must be auto, local or the host:port of a cluster, but is {address!r}")
        if self.workers != "auto":
            raise UserError("leave out workers: Ray uses every core that its cluster has free")
        if self.check:
            raise UserError("leave out ray: check reads the clips on this machine")

    @property
    def share(self) -> tuple[int, int]:
        """`part` as two numbers."""
        return parse_share("part", self.part)
