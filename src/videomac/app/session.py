"""One browser tab: its clip, its labels and what has been made of them. Nothing of it is visible to another tab."""

from __future__ import annotations

import shutil
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from videomac.app.backbones import STRIDE, Backbones
from videomac.app.clip import Clip
from videomac.app.labelling import Labelling
from videomac.app.propagation import Propagation
from videomac.errors import UserError
from videomac.evaluate.images import Ids
from videomac.evaluate.overlays import Picture
from videomac.labeling.config import PropagateConfig
from videomac.labeling.pictures import draw

NEAR = 0.03
"""How far, as a share of the frame's longer side, the eraser may miss a point."""
LIVE_SIDE = 200
"""Pixels of the short side of a picture that is shown while labels are propagated, at least."""
PRIVATE = ("work", "config.yaml", "source.json")
"""What stays behind when everything is downloaded: it names folders of this machine."""


class Session:
    """All that belongs to one browser tab.

    Attributes:
        folder: for its files; removed in the end.
        clip: the opened one.
        opened: how many clips have been.
        labelling: what is labelled.
        active: number of the label that is drawn.
        seen: the frame that the page shows, and `tab` the part of the page.
        propagation: the latest.
    """

    def __init__(self, folder: Path, backbones: Backbones, clip: Clip | None = None) -> None:
        self.folder, self.backbones = folder, backbones
        folder.mkdir(parents=True)
        self.clip = clip
        self.opened = 0 if clip is None else 1
        self.labelling, self.active = Labelling(), 1
        self.seen, self.tab = 0, "label"
        self.propagation: Propagation | None = None
        self.lock = threading.RLock()
        self.memory: dict[Any, Any] = {}  # what the other tabs have computed for this clip

    def open(self, upload: Path, name: str) -> None:
        """Take over a file that a browser has sent: it is moved away from where files are served.

        Raises:
            UserError: it is no video that can be read; the clip that was open stays.
        """
        name = name.replace("\\", "/").rpartition("/")[2] or "the file"
        try:
            path = self.folder / f"clip{self.opened + 1}{Clip.suffix_of(name)}"
            shutil.move(upload, path)
        finally:
            upload.unlink(missing_ok=True)
        try:
            clip = Clip.uploaded(path, name)
        except UserError:
            path.unlink()
            raise
        with self.lock:
            self._end_propagation()
            if self.clip is not None and self.clip.path.parent == self.folder:
                self.clip.path.unlink()
            self.clip, self.opened = clip, self.opened + 1
            self.labelling, self.active, self.seen, self.memory = Labelling(), 1, 0, {}

    @property
    def the_clip(self) -> Clip:
        """The clip.

        Raises:
            UserError: none is open.
        """
        if self.clip is None:
            raise UserError("no clip is open: open one first")
        return self.clip

    @property
    def is_busy(self) -> bool:
        """Whether labels are being propagated."""
        return self.propagation is not None and not self.propagation.ended

    # Labels -----------------------------------------------------------------------------------------------------------

    def mask(self, frame: int) -> Ids | None:
        """A frame's mask: what is labelled there, or else what has been propagated."""
        labelled = self.labelling.labels.masks.get(frame)
        if labelled is not None or self.propagation is None:
            return labelled
        return self.propagation.mask(frame)

    def points(self, frame: int) -> dict[str, Sequence[float]]:
        """A frame's points by name, (x, y, visible), in the order of the labels."""
        found: dict[str, Sequence[float]] = {}
        known = {} if self.propagation is None else self.propagation.points(frame)
        labelled = self.labelling.labels.points.get(frame, {})
        for name in self.labelling.names.values():
            if name in labelled:
                point = labelled[name]
                found[name] = (point.x, point.y, point.visible)
            elif name in known:
                found[name] = known[name][:3]
        return found

    def picture(self, frame: int) -> Picture:
        """A frame with its labels; a smaller one while labels are propagated, which should take the time.

        Raises:
            UserError: the frame cannot be read.
        """
        found = self.points(frame)
        # Colours go by number: labels without a point are passed on as hidden ones, so that none is skipped.
        last = max(self.labelling.names)
        names = [self.labelling.names.get(number, "") for number in range(1, last + 1)]
        points = {str(number): found.get(name, (0, 0, False)) for number, name in enumerate(names)}
        picture, mask = self.the_clip.frame(frame), self.mask(frame)
        if self.is_busy and (step := max(1, min(self.the_clip.size) // LIVE_SIDE)) > 1:
            picture, mask = picture[:, ::step, ::step], None if mask is None else mask[::step, ::step]
            points = {number: (x / step, y / step, visible) for number, (x, y, visible) in points.items()}
        return draw(picture, mask, points if found else {})

    def click(self, frame: int, x: float, y: float) -> None:
        """Place the active label's point; x and y are pixels of the video."""
        with self.lock:
            self._require_idle()
            height, width = self.the_clip.size
            x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
            self.labelling.point(self._checked(frame), self.active, x, y)

    def stroke(self, frame: int, points: Sequence[Sequence[float]], radius: float, *, erase: bool) -> None:
        """Paint the active label, or erase: paint that is touched, or else the point nearest to the stroke's start."""
        with self.lock:
            self._require_idle()
            frame, mask = self._checked(frame), self.mask(frame)
            if erase and (near := self._nearest(frame, points[0])) is not None:
                self.labelling.hide(frame, near)
                return
            under = np.zeros(self.the_clip.size, dtype=np.uint8) if mask is None else mask
            if not erase or under.any():
                self.labelling.paint(frame, 0 if erase else self.active, points[:5000], radius, under)

    def choose(self, number: int) -> None:
        """Draw another label from now on."""
        if number in self.labelling.names:
            self.active = number

    def add(self) -> None:
        """One more label, which is drawn from now on."""
        with self.lock:
            self._require_idle()
            self.active = self.labelling.add()

    def rename(self, number: int, name: str) -> None:
        """Call a label something else; what has been propagated keeps the old name until it is propagated again."""
        with self.lock:
            self._require_idle()
            self.labelling.rename(number, name)

    def remove(self, number: int) -> None:
        """Drop a label."""
        with self.lock:
            self._require_idle()
            self.labelling.remove(number)
            self._choose_one_of_them()

    def undo(self) -> None:
        """Take back the latest step."""
        with self.lock:
            self._require_idle()
            self.labelling.undo()
            self._choose_one_of_them()

    def forget(self, frame: int) -> None:
        """Take back what is labelled in a frame."""
        with self.lock:
            self._require_idle()
            self.labelling.forget(frame)

    def _choose_one_of_them(self) -> None:
        if self.active not in self.labelling.names:
            self.active = min(self.labelling.names)

    def _nearest(self, frame: int, place: Sequence[float]) -> str | None:
        seen = {name: (x, y) for name, (x, y, visible) in self.points(frame).items() if visible}
        distance = {name: float(np.hypot(x - place[0], y - place[1])) for name, (x, y) in seen.items()}
        name = min(distance, key=distance.__getitem__, default=None)
        return name if name is not None and distance[name] <= NEAR * max(self.the_clip.size) else None

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < len(self.the_clip):
            raise UserError(f"there is no frame {frame}")
        return frame

    def _require_idle(self) -> None:
        if self.is_busy:
            raise UserError("labels are being propagated: stop that first")

    # Propagation ------------------------------------------------------------------------------------------------------

    def propagate(self, backbone: str, stage: int) -> Propagation:
        """Begin to propagate what is labelled.

        Raises:
            UserError: nothing is labelled, or the backbone cannot be had.
        """
        with self.lock:
            self._require_idle()
            clip, given = self.the_clip, self.folder / "given"
            shutil.rmtree(given, ignore_errors=True)
            files = self.labelling.write(given)
            extractor = self.backbones.extractor(backbone, stage)
            config = PropagateConfig(
                video=clip.path, labels=files, out=self.folder / "labels", backbone=extractor, stage=stage,
                stride=STRIDE, device=str(self.backbones.device), overwrite=True,
            )  # fmt: skip
            self.propagation = Propagation(config, dict(self.labelling.names))
            self.propagation.start()
            return self.propagation

    def _end_propagation(self) -> None:
        if self.propagation is not None:
            self.propagation.stop()
            self.propagation.join(timeout=60)
            shutil.rmtree(self.propagation.config.out, ignore_errors=True)
            self.propagation = None

    def download(self, formats: Sequence[str], folder: Path) -> Path:
        """Everything that `propagate` writes, as one zip in a folder.

        Raises:
            UserError: there is nothing, or a format cannot be written.
        """
        with self.lock:
            self._require_idle()
            if self.propagation is None:
                raise UserError("there is nothing to download yet: propagate first")
            out = self.propagation.write(list(formats))
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "labels.zip"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in _files(out):
                    archive.write(file, file.relative_to(out))
                for file in _files(self.folder / "given"):
                    archive.write(file, Path("given") / file.relative_to(self.folder / "given"))
            return path

    # The other tabs ---------------------------------------------------------------------------------------------------

    def remembered(self, key: Any, make: Any) -> Any:
        """What has been computed for this clip before, or is now."""
        with self.lock:
            if key not in self.memory:
                self.memory[key] = make()
            return self.memory[key]

    def close(self) -> None:
        """Stop what runs and remove all files."""
        with self.lock:
            self._end_propagation()
            shutil.rmtree(self.folder, ignore_errors=True)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0] not in PRIVATE:
            yield path


class Sessions:
    """The sessions of all tabs, each under the secret name that gradio gave it.

    Args:
        root: folder for all of their files.
        backbones: what they share.
        video: clip that every session begins with.
    """

    def __init__(self, root: Path, backbones: Backbones, video: Path | None = None) -> None:
        self.root, self.backbones = root, backbones
        self._first = None if video is None else Clip(video, video.name)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()
        self._count = 0

    def of(self, key: str) -> Session:
        """The session of a tab, new if need be."""
        with self._lock:
            if key not in self._sessions:
                self._count += 1
                self._sessions[key] = Session(self.root / f"session{self._count}", self.backbones, self._first)
            return self._sessions[key]

    def close(self, key: str) -> None:
        """Forget a tab that has been closed."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """Forget everybody."""
        for key in list(self._sessions):
            self.close(key)
