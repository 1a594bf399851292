"""What the figures share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from torch import Tensor

Picture = npt.NDArray[np.uint8]
CELL = 1.9
"""Height of a picture in inches."""


def _show(axis: Axes, picture: Any) -> None:
    axis.imshow(picture, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _image(picture: Tensor) -> Picture:
    return np.asarray(picture.permute(1, 2, 0).numpy(), dtype=np.uint8)
