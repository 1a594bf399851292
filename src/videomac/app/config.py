"""The options of `app`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from videomac.errors import UserError
from videomac.utils.checks import check_values


@dataclass
class AppConfig:
    """Label a video, see reconstructions and features, with the mouse, in the browser on this machine."""

    video: Path | None = None
    """Video file or folder of frames to begin with; others can be opened in the page."""

    command: ClassVar[str] = "app"

    backbone: list[str] | None = None
    """Whose features: one or several of what `propagate` takes, to choose from in the page. Unless given, resnet18
    with random weights, raw-pixels, and tf_efficientnet_lite0.in1k, which is downloaded when it is chosen."""
    port: int = 7860
    """Port on which the page is served."""
    host: str = "127.0.0.1"
    """Address on which the page is served. The default is for this machine only; 0.0.0.0 lets everybody in your network
    in, without a password."""
    device: str = "auto"
    """cpu, cuda, mps, or auto."""

    def __post_init__(self) -> None:
        """Put paths into their final form and refuse what cannot work."""
        check_values(self)
        self.video = None if self.video is None else Path(self.video)
        if not 1 <= self.port <= 65535:
            raise UserError(f"port must lie between 1 and 65535, but is {self.port}")
