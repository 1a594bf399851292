"""What the page is shown: plain values, made of a session, that the page's scripts draw."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from videomac.app.labelling import Labelling
from videomac.app.session import Session

MOST_SAMPLES = 400
"""Frames of a curve that are sent; of longer videos, each sample is the lowest of its frames."""


def data_url(picture: npt.NDArray[np.uint8]) -> str:
    """A picture inside the page itself, so that no file has to be served."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def stage(session: Session, frame: int) -> dict[str, Any]:
    """The picture that is drawn on.

    Raises:
        UserError: the frame cannot be read.
    """
    if session.clip is None:
        return {}
    height, width = session.clip.size
    session.seen = frame = min(max(frame, 0), len(session.clip) - 1)
    return {
        "src": data_url(session.picture(frame)),
        "frame": frame,
        "width": width,
        "height": height,
        "colour": Labelling.colour(session.active),
        "busy": session.is_busy,
    }


def labels(session: Session) -> dict[str, Any]:
    """The list of labels."""
    entries = [
        {"number": number, "name": name, "colour": Labelling.colour(number), "active": number == session.active}
        for number, name in session.labelling.names.items()
    ]
    return {"labels": entries}


def timeline(session: Session, *, go_to: int | None = None) -> dict[str, Any]:
    """The scrubber, with how sure each frame is.

    Args:
        session: of a tab.
        go_to: frame to go to; None leaves the scrubber where it is.
    """
    if session.clip is None:
        return {"clip": 0, "length": 0}
    run = session.propagation
    value: dict[str, Any] = {
        "clip": session.opened,
        "name": session.clip.name,
        "length": len(session.clip),
        "frame": go_to,
        "labelled": session.labelling.labels.frames,
        "suggested": [],
        "curves": [],
        "busy": session.is_busy,
        "progress": None,
    }
    if run is not None:
        value["suggested"] = [frame for frame in run.suggested if frame not in value["labelled"]]
        value["curves"] = curves(dict(run.rows), session.labelling.names)
        if run.step is not None:
            done, total, rate = run.step.done, run.step.total, run.rate
            left = "" if run.ended else f", {(total - done) / max(rate, 1e-6):.0f} s left"
            value["progress"] = {
                "share": done / total,
                "words": f"{len(run.rows)} frames labelled, {rate:.1f} frames/s{left}",
            }
        elif session.is_busy:
            value["progress"] = {"share": 0, "words": "starting"}
    return value


def curves(rows: Mapping[int, Any], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """How sure each label is over the frames: names, colours, and [frame, share of the votes] pairs.

    Args:
        rows: what is known of each frame; objects go by their number, points by their name.
        names: of the labels, by number.
    """
    frames = sorted(rows)
    if not frames:
        return []
    every = -(-len(frames) // MOST_SAMPLES)
    numbers = {name: number for number, name in names.items()}
    found = []
    for key in rows[frames[0]]["confidence"]:
        is_point = key in rows[frames[0]]["points"]
        number = numbers.get(key, 0) if is_point else int(key)
        name = names.get(number, key)
        values = [
            [first, round(min(rows[frame]["confidence"].get(key, 1.0) for frame in frames[at : at + every]), 3)]
            for at, first in list(enumerate(frames))[::every]
        ]
        found.append({"name": name, "colour": Labelling.colour(number), "values": values})
    return found


def gallery(
    pictures: Sequence[tuple[str, npt.NDArray[np.uint8]]], note: str = "", *, columns: int = 3
) -> dict[str, Any]:
    """Pictures side by side, each with a caption, and a note below them."""
    shown = [{"caption": caption, "src": data_url(picture)} for caption, picture in pictures]
    return {"pictures": shown, "note": note, "columns": columns}
