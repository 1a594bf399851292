"""One source to clips: read once, cut at scene changes, each shot encoded while it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from videomac.prepare.cuts import Picture, find_cuts
from videomac.prepare.encode import GOP, ClipWriter, Shrinker
from videomac.prepare.folder import ClipFolder, clip_name, writing
from videomac.prepare.footage import Footage
from videomac.prepare.journal import Journal, JournalWriter, Shot, Source, read_journal
from videomac.prepare.looks import Thumbnail, fingerprint, is_static

LEAST_FRAMES = GOP
"""Frames of the shortest clip: one group of pictures."""
MOST_FRAMES = 120 * GOP
"""Frames of the longest clip, a minute at 24 a second; what is held in memory stays a few megabytes."""

Heard = Callable[[float, float], None]
"""Told of progress: seconds of footage, and the share of the source, since it was last called. May raise, to stop."""


@dataclass(frozen=True)
class Outcome:
    """What became of a source.

    Attributes:
        source: its name.
        clips: how many it gave.
        seconds: of footage read.
        problem: what could not be read, and why; None if all could.
    """

    source: str
    clips: int
    seconds: float
    problem: str | None


@dataclass(frozen=True)
class Task:
    """What is to be done with a source.

    Attributes:
        source: it.
        part: in whose name.
        drop_static: leave out shots in which nothing moves.
        unwanted: names of its clips that are missing on purpose.
    """

    source: Source
    part: str
    drop_static: bool = False
    unwanted: frozenset[str] = frozenset()


def prepare_source(folder: ClipFolder, task: Task, heard: Heard) -> Outcome:
    """Make the clips of a source that are not there yet.

    Raises:
        UserError: the folder of clips cannot be written.
    """
    lock = folder.source_lock(task.source)
    with writing(folder.path):
        lock.wait(check=lambda: heard(0.0, 0.0))
    try:
        journal = read_journal(folder.journal_path(task.source))
        if is_done(folder, task.source, journal, task.unwanted):  # by another process, while this one waited
            return Outcome(task.source.name, 0, journal.seconds or 0.0, journal.problem)
        if journal.identity != task.source.identity:
            journal = _forget(folder, journal)
        try:
            return _read(folder, task, journal, heard)
        except _OtherShotsError as error:
            if error.passing:  # the disk failed in the middle: what is there is not to be judged by that
                return Outcome(task.source.name, 0, 0.0, error.problem)
            return _read(folder, task, _forget(folder, journal), heard)
    finally:
        lock.release()


def is_done(folder: ClipFolder, source: Source, journal: Journal, unwanted: frozenset[str]) -> bool:
    """Whether a source was read to its end as it is now, and its clips are there, but for those that nobody wants."""
    made = [shot for shot in journal.shots if shot.name and shot.name not in unwanted]
    same = journal.identity == source.identity and journal.finished
    return same and all(folder.has_clip(shot.name, shot.bytes) for shot in made)


class _OtherShotsError(Exception):
    """The shots are not those of the journal: it was written with another version of FFmpeg."""

    def __init__(self, footage: Footage) -> None:
        super().__init__()
        self.problem, self.passing = footage.problem, footage.passing


def _forget(folder: ClipFolder, journal: Journal) -> Journal:
    """Remove the clips of a source that is another one now; what another source gave as well is made again for it."""
    for shot in journal.shots:
        if shot.name:
            folder.remove_clip(shot.name)
    return Journal({}, [])


def _read(folder: ClipFolder, task: Task, journal: Journal, heard: Heard) -> Outcome:
    footage, shrink = Footage(task.source.path), Shrinker()
    told = _Told(footage, heard)
    with writing(folder.path):
        writer = JournalWriter(folder.journal_path(task.source), task.source, journal.shots)
    with writer:
        cutter = _Cutter(folder, task, footage, writer)
        try:
            for picture, is_new in find_cuts(map(shrink, footage)):
                cutter.add(picture, is_new)
                told.until(picture.seconds)
            seconds = cutter.finish()
        finally:
            cutter.abandon()
        if cutter.number < len(writer.shots) and not footage.passing:
            raise _OtherShotsError(footage)
        # A source that gave nothing is tried again: that costs little, and its owner may have mended it.
        with writing(folder.path):
            writer.finish(seconds, footage.problem, passing=footage.passing or (bool(footage.problem) and not seconds))
    told.until(seconds, share=1.0)
    return Outcome(task.source.name, sum(bool(shot.name) for shot in writer.shots), seconds, footage.problem)


@dataclass
class _Told:
    """Passes progress on, a few times for each second of footage."""

    footage: Footage
    heard: Heard
    seconds: float = 0.0
    share: float = 0.0

    def until(self, seconds: float, share: float | None = None) -> None:
        if share is None:
            if 0 <= seconds - self.seconds < 0.5:
                return
            share = min(seconds / self.footage.duration, 1.0) if self.footage.duration else 0.0
        self.heard(seconds - self.seconds, share - self.share)
        self.seconds, self.share = seconds, share


@dataclass
class _Cutter:
    """Takes pictures one by one and makes a clip of each shot, or of each `MOST_FRAMES` of it.

    Attributes:
        number: shots so far.
    """

    folder: ClipFolder
    task: Task
    footage: Footage
    journal: JournalWriter
    number: int = 0
    _pictures: int = 0  # so far, of the source
    _first: Picture | None = None  # of the shot
    _last: Picture | None = None
    _frames: int = 0  # of the shot
    _known: Shot | None = None
    _writer: ClipWriter | None = None
    _thumbnails: list[Thumbnail] = field(default_factory=list)  # brightness of the shot's key frames

    def add(self, picture: Picture, is_new: bool) -> None:
        """Take the next picture, with which a new shot may begin."""
        if self._first is not None and (is_new or self._frames == MOST_FRAMES):
            self._close()
        if self._first is None:
            self._open(picture)
        if self._writer is not None:
            if self._frames % GOP == 0:
                self._thumbnails.append(picture.thumbnail[0])
            self._writer.add(picture.frame)
        self._frames += 1
        self._pictures += 1
        self._last = picture

    def finish(self) -> float:
        """End the last shot; returns the seconds of footage."""
        if self._last is None:
            return 0.0
        seconds = self._last.seconds + 1 / float(self.footage.rate)
        self._close()
        return seconds

    def abandon(self) -> None:
        """Free what the encoder holds; after `finish` that is nothing."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def _open(self, picture: Picture) -> None:
        self._first, self._frames, self._thumbnails = picture, 0, []
        self._known = self._made_before()
        if self._known is None:
            self._writer = ClipWriter(picture.frame, self.footage.rate)

    def _made_before(self) -> Shot | None:
        """What the journal says of this shot, unless its clip is missing."""
        if self.number >= len(self.journal.shots):
            return None
        shot = self.journal.shots[self.number]
        if shot.first != self._pictures:
            raise _OtherShotsError(self.footage)
        there = not shot.name or shot.name in self.task.unwanted or self.folder.has_clip(shot.name, shot.bytes)
        return shot if there else None

    def _close(self) -> None:
        assert self._first is not None and self._last is not None
        if self._known is not None:
            if self._known.frames != self._frames:
                raise _OtherShotsError(self.footage)
        else:
            assert self._writer is not None
            self._thumbnails.append(self._last.thumbnail[0])
            data = self._writer.finish()
            self._writer = None
            self._keep(self._shot(data, self._first), data)
        self._first = None
        self.number += 1

    def _shot(self, data: bytes, first: Picture) -> Shot:
        place = Shot(round(first.seconds, 6), self._pictures - self._frames, self._frames)
        if self._frames < LEAST_FRAMES:
            return replace(place, reason=f"shorter than {LEAST_FRAMES} frames")
        if self.task.drop_static and is_static(self._thumbnails):
            return replace(place, reason="static: nothing moves")
        return replace(
            place,
            name=clip_name(data),
            fps=float(self.footage.rate),
            height=first.frame.height,
            width=first.frame.width,
            bytes=len(data),
            looks=fingerprint(self._thumbnails),
        )

    def _keep(self, shot: Shot, data: bytes) -> None:
        with writing(self.folder.path):
            self.journal.put(self.number, shot)  # first, so that every clip that is there is accounted for
        if shot.name:
            self.folder.publish(shot, self.task.source, data, self.task.part)
