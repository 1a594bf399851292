"""`videomac prepare`: footage to clips that train fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomac.data.manifest import FORMAT
from videomac.errors import UserError
from videomac.prepare.check import check
from videomac.prepare.cluster import Lost, spread
from videomac.prepare.collect import Collected, collect, duplicates
from videomac.prepare.config import PrepareConfig
from videomac.prepare.encode import CRF, GOP, SHORT_SIDE
from videomac.prepare.folder import ClipFolder, writing
from videomac.prepare.journal import JournalWriter, Source, read_journal
from videomac.prepare.processes import Died, cores, work_through
from videomac.prepare.progress import Progress, counted, duration, size
from videomac.prepare.shots import LEAST_FRAMES, MOST_FRAMES, Outcome, Task, is_done, prepare_source
from videomac.prepare.sources import find_sources, require_apart, share_of


def run(config: PrepareConfig) -> Collected:
    """Prepare a share of the footage, or check what was prepared.

    Raises:
        UserError: there is no footage, the folder of clips is not one or cannot be written, or somebody else is at work
            on the same part; or `check` has found something wrong.
        KeyboardInterrupt: the user has had enough; what is done has been listed.
    """
    workers = cores() if config.workers == "auto" else config.workers
    require_apart(config.raw, config.clips)
    if config.check:
        return check(config.clips, workers)
    sources = share_of(find_sources(config.raw), *config.share)
    folder = ClipFolder.open(config.clips, settings(config))
    with folder.part(config.part):
        tasks = unfinished(folder, sources, config)
        print(f"{counted(len(sources), 'source')} in part {config.part}, {len(tasks):,} to be read")
        try:
            if config.ray is None:
                prepare_all(folder, tasks, workers)
            else:
                prepare_on_cluster(folder, tasks, config.raw, config.ray)
        except KeyboardInterrupt:
            done = collect(folder, config.part)
            raise KeyboardInterrupt(f"interrupted: {_summary(done, config)}; the same command goes on") from None
        except UserError:
            _try_to_collect(folder, config.part)
            raise
        done = collect(folder, config.part)
    print(_summary(done, config))
    return done


def settings(config: PrepareConfig) -> dict[str, Any]:
    """Everything that decides about the clips, besides the footage."""
    return {
        "format": FORMAT,
        "short_side": SHORT_SIDE,
        "gop": GOP,
        "crf": CRF,
        "least_frames": LEAST_FRAMES,
        "most_frames": MOST_FRAMES,
        "drop_static": config.drop_static,
        "drop_duplicates": config.drop_duplicates,
    }


def unfinished(folder: ClipFolder, sources: Iterable[Source], config: PrepareConfig) -> list[Task]:
    """What is yet to be done: sources that were never read to their end, have changed, or whose clips are missing."""
    unwanted = frozenset(duplicates(folder.journals())) if config.drop_duplicates else frozenset[str]()
    tasks = []
    for source in sources:
        journal = read_journal(folder.journal_path(source))
        mine = unwanted & {shot.name for shot in journal.shots}
        if not is_done(folder, source, journal, mine):
            tasks.append(Task(source, config.part, config.drop_static, mine))
    return tasks


@dataclass(frozen=True)
class _Work:
    """Does a task in a process of its own; an object and no closure, because it is sent there."""

    folder: ClipFolder

    def __call__(self, task: Task, say: Callable[[Any], None]) -> Outcome:
        total = task.source.size
        return prepare_source(self.folder, task, lambda seconds, share: say((seconds, share * total)))


def prepare_all(folder: ClipFolder, tasks: list[Task], workers: int) -> None:
    """Do all tasks, each in one of so many processes, and show how far it is.

    Raises:
        UserError: the folder of clips cannot be written.
    """
    with Progress(sum(task.source.size for task in tasks)) as progress:
        for outcome in work_through(tasks, _Work(folder), workers, lambda said: progress.add(*said)):
            if isinstance(outcome, Died):
                how = f"by signal {-outcome.status}" if outcome.status < 0 else f"with status {outcome.status}"
                problem = f"the process that read it died {how}, perhaps for lack of memory"
                _note_loss(folder, outcome.job.source, problem)


def prepare_on_cluster(folder: ClipFolder, tasks: list[Task], raw: Path, address: str) -> None:
    """Do all tasks on the nodes of a Ray cluster, and show how far it is.

    Raises:
        UserError: there is no such cluster, a node lacks something, or the folder of clips cannot be written.
    """
    sizes = {task.source.name: task.source.size for task in tasks}
    with Progress(sum(sizes.values())) as progress, closing(spread(folder, raw, tasks, address)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Lost):
                _note_loss(folder, outcome.task.source, outcome.problem)
            else:
                progress.add(outcome.seconds, sizes[outcome.source])


def _note_loss(folder: ClipFolder, source: Source, problem: str) -> None:
    """List a source that was not read to its end with what was made of it; it is tried again next time."""
    lock = folder.source_lock(source)
    with writing(folder.path):
        lock.wait()
        try:
            journal = read_journal(folder.journal_path(source))
            shots = journal.shots if journal.identity == source.identity else []
            with JournalWriter(folder.journal_path(source), source, shots) as writer:
                writer.finish(0.0, problem, passing=True)
        finally:
            lock.release()


def _try_to_collect(folder: ClipFolder, part: str) -> None:
    """List what is done, although something is wrong already that shall be told."""
    try:
        collect(folder, part)
    except UserError:
        pass


def _summary(done: Collected, config: PrepareConfig) -> str:
    """One line for people."""
    said = [f"{config.clips} holds {counted(done.clips, 'clip')}, {duration(done.seconds)}, {size(done.bytes)}"]
    if done.dropped:
        said.append(f"{counted(done.dropped, 'shot')} became no clip (dropped.csv)")
    if done.skipped:
        said.append(f"{counted(done.skipped, 'source')} could not be read, or not to the end (skipped.csv)")
    if done.unfinished:
        said.append(f"{counted(done.unfinished, 'source')} not finished: other parts do it, or the same command again")
    if done.strangers:
        said.append(f"{counted(done.strangers, 'file')} not listed, being clips of no source")
    return "; ".join(said)
