"""A propagation that runs beside the page, which looks at how far it is and may stop it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from videomac.data.video import VideoError
from videomac.errors import UserError
from videomac.evaluate.images import Ids, read_ids
from videomac.labeling.command import Job, Step, finish, label, prepare, suggestions
from videomac.labeling.config import PropagateConfig


class Propagation(threading.Thread):
    """`videomac propagate` in a thread of its own: the page's work does not slow it down.

    Attributes:
        rows: what is known of each frame, by its number.
        step: the latest.
        problem: one sentence for whatever ended it early.
        suggested: frames to label next, once it is over.
    """

    def __init__(self, config: PropagateConfig, names: dict[int, str]) -> None:
        super().__init__(daemon=True)
        self.config, self.names = config, names
        self.job: Job | None = None
        self.rows: dict[int, Any] = {}
        self.step: Step | None = None
        self.problem = ""
        self.suggested: list[int] = []
        self.begun, self.ended = time.perf_counter(), 0.0
        self._stop_asked = threading.Event()
        self._news = threading.Condition()

    @property
    def rate(self) -> float:
        """Frames a second, from the first frame on."""
        done = self.step.done if self.step else 0
        return done / max((self.ended or time.perf_counter()) - self.begun, 1e-6)

    def run(self) -> None:
        """Do it, until it is done or stopped."""
        problems: list[str] = []
        try:
            self.job = prepare(self.config)
            self.job.labels.names.update(self.names)
            self.begun = time.perf_counter()
            steps = label(self.job, problems)
            for step in steps:
                if step.row is not None:
                    self.rows[step.frame] = step.row
                with self._news:
                    self.step = step
                    self._news.notify_all()
                if self._stop_asked.is_set():
                    steps.close()  # type: ignore[attr-defined]  # an iterator to those who only look on
                    break
            if self.rows:
                self.suggested = suggestions(self.job, self.rows)
        except (UserError, VideoError) as error:
            problems.append(str(error))
        except Exception as error:  # the page must say what happened, and live on
            problems.append(f"propagation failed: {type(error).__name__}: {error}")
        self.problem = problems[0] if problems else ""
        with self._news:
            self.ended = time.perf_counter()
            self._news.notify_all()

    def stop(self) -> None:
        """End after the present frame; what is done stays."""
        self._stop_asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the first frame, then for the time given; returns whether it goes on."""
        with self._news:
            if self.step is None:
                self._news.wait_for(lambda: self.step is not None or self.ended, timeout=60)
            else:
                self._news.wait_for(lambda: self.ended, timeout=seconds)
        return not self.ended

    def mask(self, frame: int) -> Ids | None:
        """The mask that has been propagated to a frame."""
        step = self.step
        path = self.config.out / "masks" / f"{frame:05d}.png"
        if frame in self.rows and path.is_file():
            return read_ids(path)
        if step is not None and step.frame == frame and self.job is not None and self.job.channels.ids:
            return self.job.channels.mask(step.maps)  # what the backward pass makes of it, so far
        return None

    def points(self, frame: int) -> dict[str, list[float]]:
        """The points that have been propagated to a frame: (x, y, visible, confidence)."""
        found: dict[str, list[float]] = self.rows[frame]["points"] if frame in self.rows else {}
        return found

    def write(self, formats: list[Any]) -> Path:
        """Write everything that `propagate` writes; returns the folder.

        Raises:
            UserError: there is nothing, or a format cannot be written.
        """
        if self.job is None or not self.rows:
            raise UserError("there is nothing to download yet: propagate first")
        from videomac.labeling.formats import check_formats

        check_formats(formats, self.job.labels)
        finish(replace(self.job, config=replace(self.config, formats=formats)), self.rows, self.rate)
        return self.config.out
