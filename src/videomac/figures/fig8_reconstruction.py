"""Fig. 8: reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from videomac.figures.common import CELL, _image, _show
from videomac.reconstruction.pictures import Reconstruction


def reconstructions(first: Reconstruction, second: Reconstruction, labels: Sequence[str], caption: str) -> Figure:
    """Fig. 8: a row for each pair; of both frames the frame, what was seen, and the reconstruction in its place."""
    count, _, height, width = first.frame.shape
    figure = Figure(figsize=(6 * CELL * width / height * 0.82 + 0.3, count * CELL * 0.82 + 0.9), layout="constrained")
    axes = figure.subplots(count, 6, squeeze=False)
    names = ("frame", "seen", "reconstructed")
    for number, row in enumerate(axes):
        for side, pictures in enumerate((first, second)):
            for offset, picture in enumerate((pictures.frame, pictures.masked, pictures.pasted)):
                _show(row[3 * side + offset], _image(picture[number]))
        row[0].set_ylabel(labels[number], fontsize=8)
    for column, axis in enumerate(axes[0]):
        whose = ("first frame, online network", "second frame, target network")[column // 3]
        axis.set_title((f"{whose}\n" if column % 3 == 1 else "\n") + names[column % 3], fontsize=10)
    figure.suptitle(caption, fontsize=10)
    return figure
