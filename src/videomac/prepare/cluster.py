"""Nodes of a Ray cluster that work through a list; what a dying one was at is done again by another."""

from __future__ import annotations

import logging
import os
import pickle
import platform
import socket
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

import videomac
from videomac.errors import UserError
from videomac.prepare.folder import ClipFolder, writing
from videomac.prepare.processes import Stopped
from videomac.prepare.shots import Outcome, Task, prepare_source

MOST_TRIES = 6
"""How often a source is begun whose process or node dies each time; then it is listed. Ray would never give up."""
MOST_AT_ONCE = 10_000
"""Sources that Ray is given at once: it keeps a few kilobytes of each in the memory of this process."""
PATIENCE = 60.0
"""Seconds after which a node must see a new file of another one; network file systems remember what was not there."""


@dataclass(frozen=True)
class Lost:
    """A source that no process could read to its end.

    Attributes:
        task: it.
        problem: what happened, in words.
    """

    task: Task
    problem: str


@dataclass(frozen=True)
class _Order:
    """What all tasks share.

    Attributes:
        folder: of the clips, by its absolute path.
        raw: the footage, by its absolute path.
        permit: a file that is there as long as somebody waits for the results; beside it a file for each source that
            was begun, of a byte for each time.
    """

    folder: ClipFolder
    raw: Path
    permit: Path

    def require_shared(self) -> None:
        """Raise if this node does not have the folders of the one that gave the order."""
        for path in (self.raw, self.folder.state):
            if not path.exists():
                raise UserError(_unshared(path))
        end = time.monotonic() + PATIENCE
        while not self.permit.exists():
            if time.monotonic() > end:
                raise UserError(_unshared(self.permit))
            time.sleep(0.2)

    def count(self, number: int) -> int:
        """Note that a task is begun, and return how often it was."""
        with writing(self.folder.path), self.permit.with_name(f"{self.permit.name}-{number}").open("ab") as file:
            file.write(b".")
            file.flush()
            return os.fstat(file.fileno()).st_size

    def heard(self, *_: float) -> None:
        """End the work if nobody waits for it: a node that has lost its cluster may not notice at once."""
        if not self.permit.exists():
            raise Stopped


def spread(folder: ClipFolder, raw: Path, tasks: Sequence[Task], address: str) -> Generator[Outcome | Lost, None, None]:
    """Do tasks on the nodes of a Ray cluster, one on each free core.

    Args:
        folder: of the clips.
        raw: the footage.
        tasks: of one part, which the caller holds.
        address: of the cluster, as host:port; "auto" for the one that this machine is a node of; "local" for a new one
            of this machine alone.

    Yields:
        What became of the tasks, as they end.

    Raises:
        UserError: there is no such cluster, a node lacks something, or the folder of clips cannot be written.
    """
    if not tasks:
        return
    # Absolute, because processes of other nodes begin in other folders.
    folder = ClipFolder(folder.path.absolute(), folder.settings)
    tasks = [replace(task, source=replace(task.source, path=task.source.path.absolute())) for task in tasks]
    order = _Order(folder, raw.absolute(), folder.temporary(tasks[0].part) / f"ray-{uuid.uuid4().hex}")
    left = dict(enumerate(tasks))
    try:
        with _connected(address):
            with writing(folder.path):
                order.permit.parent.mkdir(parents=True, exist_ok=True)
                order.permit.touch()
            try:
                for first in range(0, len(tasks), MOST_AT_ONCE):
                    yield from _round(order, range(first, min(first + MOST_AT_ONCE, len(tasks))), left)
            finally:
                order.permit.unlink(missing_ok=True)
    finally:
        _await_the_last(folder, left.values())


def _round(order: _Order, numbers: range, left: dict[int, Task]) -> Iterator[Outcome | Lost]:
    """Give Ray so many tasks, and take what is done out of `left`."""
    import ray.data
    import ray.exceptions

    ray.data.DataContext.get_current().enable_progress_bars = False  # this command has its own
    rows = [{"number": number, "task": pickle.dumps(left[number])} for number in numbers]
    # A block for each source, because Ray takes a block for a task, and does all of it again if its node dies.
    work = _by_value(pickle.dumps(order), versions())
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(work, num_cpus=1)
    batch: Any
    try:
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                if row["error"]:
                    raise UserError(row["error"])
                task = left.pop(row["number"])
                yield Lost(task, row["lost"]) if row["lost"] else Outcome(task.source.name, 0, row["seconds"], None)
    except ray.exceptions.RayError as error:
        raise UserError(
            f"Ray cannot go on ({_first_line(error)}); the same command does, once that is mended"
        ) from error


def _by_value(order: bytes, wanted: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that Ray copies to other nodes, so that it can tell there that videomac is missing."""

    def do(row: dict[str, Any]) -> dict[str, Any]:
        try:
            from videomac.prepare import cluster
        except ImportError as error:
            import socket

            said = f"the node {socket.gethostname()} cannot import what it needs ({error}): install videomac there"
            return {"number": row["number"], "seconds": 0.0, "error": said, "lost": ""}
        return cluster.serve(order, wanted, row)

    return do


def serve(order: bytes, wanted: str, row: dict[str, Any]) -> dict[str, Any]:
    """Do a task on a node, and raise nothing: what Ray sees fail is a process or node that has died, and is retried.

    Args:
        order: what all tasks share, pickled.
        wanted: the `versions` of the machine that gave it.
        row: the `number` of a task and the `task` itself, pickled.

    Returns:
        The `number`, the `seconds` of footage read, an `error` that ends the whole work, and why the source was `lost`;
        empty if nothing went wrong.
    """
    answer = {"number": row["number"], "seconds": 0.0, "error": "", "lost": ""}
    if (mine := versions()) != wanted:
        where = f"the node {socket.gethostname()} has {mine}, and {wanted} is here"
        return {**answer, "error": f"{where}: the same bytes need the same versions on all nodes"}
    try:
        known: _Order = pickle.loads(order)
        known.require_shared()
        if known.count(row["number"]) > MOST_TRIES:
            return {**answer, "lost": f"the process that read it died {MOST_TRIES} times, perhaps for lack of memory"}
        outcome = prepare_source(known.folder, pickle.loads(row["task"]), known.heard)
    except UserError as error:
        return {**answer, "error": str(error)}
    except Stopped:
        return {**answer, "error": "stopped"}  # which nobody waits for
    except Exception as error:
        return {**answer, "lost": f"it could not be prepared ({type(error).__name__}: {error})"}
    return {**answer, "seconds": outcome.seconds}


def versions() -> str:
    """What must be the same on all nodes, in words."""
    return f"videomac {videomac.__version__} with PyAV {av.__version__} on {platform.machine()}"


def _unshared(path: Path) -> str:
    return (
        f"the node {socket.gethostname()} does not see {path}: footage and clips must lie in folders that all nodes "
        "share, by the same paths"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Be a driver of a cluster; at the end its processes of this driver are told to end."""
    try:
        import ray.data
    except ImportError:
        raise UserError("--ray needs Ray: pip install '.[ray]' in the checkout") from None
    # What a new cluster tells its makers of, and its web page, are nobody's wish here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    new: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if ":" in address:  # Ray itself tries for many minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **new)
    except (ConnectionError, RuntimeError, ValueError, OverflowError, OSError) as error:
        ray.shutdown()
        raise UserError(
            f"no Ray cluster can be used at {address} ({_first_line(error)}): start one with `ray start --head`, give "
            "its host:port, or use --ray local"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _await_the_last(folder: ClipFolder, tasks: Iterable[Task]) -> None:
    """Wait until the processes that were told to end have let go, so that what they did can be listed."""
    end = time.monotonic() + 10
    for task in tasks:
        lock = folder.source_lock(task.source)
        if lock.path.exists() and lock.wait(seconds=max(0.0, end - time.monotonic())):
            lock.release()
