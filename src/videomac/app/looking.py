"""What the tabs Reconstruct and Features show of a session's clip."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videomac.app.session import Session
from videomac.data.transforms import resize
from videomac.errors import UserError
from videomac.labeling.channels import Geometry
from videomac.labeling.feature_video import Colours, draw_similarity, frame_features
from videomac.models.masking import random_mask
from videomac.reconstruction.command import reconstruct_masked
from videomac.reconstruction.pairs import fitting_size
from videomac.utils.spacing import evenly_spaced

Pictures = list[tuple[str, npt.NDArray[np.uint8]]]
SHORT_SIDE, FITTED, OTHERS = 240, 12, 3
"""Of the frames that are looked at; frames that colours are fitted to; other frames in which is searched."""


def reconstruct(session: Session, backbone: str, frame: int, mask_ratio: float, seed: int) -> Pictures:
    """A frame, what a network was shown of it, and what it made of the rest.

    Raises:
        UserError: no clip is open, the backbone has no decoder, or nothing would be visible.
    """
    picture = session.the_clip.frame(frame)
    model, short_side = session.backbones.model(backbone)
    height, width = session.the_clip.size
    size = fitting_size(height, width, max(short_side, model.patch_size), model.patch_size)
    grid = (size[0] // model.patch_size, size[1] // model.patch_size)
    try:
        mask = random_mask(1, grid, mask_ratio, torch.Generator().manual_seed(seed))
    except ValueError as error:
        raise UserError(str(error)) from error
    found = reconstruct_masked(model, picture[None], size, mask)
    return [
        ("frame", _picture(found.frame[0])),
        (f"masked, {100 * mask_ratio:.0f} % hidden", _picture(found.masked[0])),
        ("reconstruction", _picture(found.pasted[0])),
    ]


def features(session: Session, backbones: list[str], stage: int, frame: int) -> tuple[Pictures, str]:
    """A frame, its features by each backbone as colours, and how much of them the colours show.

    Raises:
        UserError: no clip is open, or a backbone cannot be had.
    """
    pictures: Pictures = [("frame", _picture(_shown(session, frame)))]
    notes = []
    for name in backbones:
        colours = session.remembered(("colours", name, stage), lambda name=name: _fit(session, name, stage))
        size = _size(session)
        pictures.append(
            (session.backbones.short(name), _picture(colours(_features(session, name, stage, frame), size)))
        )
        notes.append(f"{session.backbones.short(name)}: {100 * colours.explained:.0f} %")
    return pictures, "Three components hold this much of the variance. " + "; ".join(notes) + "."


def similar(session: Session, backbones: list[str], stage: int, frame: int, place: tuple[float, float]) -> Pictures:
    """What is similar to a point, in its frame and in others, by each backbone.

    Args:
        session: of a tab.
        backbones: by their names.
        stage: of the features.
        frame: in which the point lies.
        place: of the point, as shares of the frame's width and height.
    """
    length = len(session.the_clip)
    others = [number for number in evenly_spaced(min(OTHERS + 1, length), length) if number != frame][:OTHERS]
    pictures: Pictures = []
    for name in backbones:
        maps = _features(session, name, stage, frame)
        row, column = (
            min(max(int(share * cells), 0), cells - 1)
            for share, cells in zip(reversed(place), maps.shape[-2:], strict=True)
        )
        for number in [frame, *others]:
            there = _features(session, name, stage, number)
            drawn = _picture(draw_similarity(_shown(session, number), there, maps[:, row, column]))
            pictures.append(
                (
                    f"{session.backbones.short(name)}, frame {number}",
                    _marked(drawn, place) if number == frame else drawn,
                )
            )
    return pictures


def _fit(session: Session, name: str, stage: int) -> Colours:
    length = len(session.the_clip)
    maps = [_features(session, name, stage, number) for number in evenly_spaced(min(FITTED, length), length)]
    return Colours.fit(torch.cat([map_.flatten(1).T for map_ in maps]))


def _features(session: Session, name: str, stage: int, frame: int) -> Tensor:
    extractor = session.backbones.extractor(name, stage)
    geometry = Geometry.fitted(session.the_clip.size, SHORT_SIDE, extractor.stride)
    with torch.inference_mode():
        return frame_features(extractor, geometry, session.the_clip.frame(frame), session.backbones.device)


def _size(session: Session) -> tuple[int, int]:
    """Of the pictures: short side 240, at most."""
    height, width = session.the_clip.size
    scale = min(1.0, SHORT_SIDE / min(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shown(session: Session, frame: int) -> Tensor:
    return resize(session.the_clip.frame(frame)[None], _size(session))[0]


def _picture(frame: Tensor) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())


def _marked(picture: npt.NDArray[np.uint8], place: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """A picture with a ring around a place."""
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    x, y, radius = place[0] * image.width, place[1] * image.height, max(4, min(image.size) // 40)
    ImageDraw.Draw(image).ellipse([x - radius, y - radius, x + radius, y + radius], outline="white", width=2)
    return np.asarray(image)
