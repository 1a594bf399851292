"""The options of `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videomac.config import as_size, require_mask_ratio
from videomac.errors import UserError
from videomac.utils.checks import check_values


@dataclass
class InspectConfig:
    """Show what a network is, what it costs, and how the engine computes each layer."""

    name: str
    """Name of a timm ConvNet, or one of videomac's own."""
    image_size: int | tuple[int, int] = 224
    """Side of the square frame, or [height, width], in pixels."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    picture: Path | None = None
    """Also draw, to this PNG or SVG, how the mask vanishes in the dense network and stays in ours (Fig. 5)."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        check_values(self)
        as_size(self.image_size)
        if self.picture is not None and Path(self.picture).suffix.lower() not in (".png", ".svg"):
            raise UserError(f"picture must be a .png or .svg, but is {self.picture}")
        require_mask_ratio(self.mask_ratio)
