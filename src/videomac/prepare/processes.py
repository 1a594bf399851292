"""Processes of this machine that work through a list; one that dies costs what it was at, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from videomac.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died(Generic[Job]):
    """A job whose process died, by a signal or for want of memory.

    Attributes:
        job: it.
        status: of the process; negative for a signal.
    """

    job: Job
    status: int


class Stopped(BaseException):
    """The process that gave the work is gone, or wants no more of it."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_through(
    jobs: Iterable[Job],
    work: Callable[[Job, Callable[[Any], None]], Result],
    processes: int,
    heard: Callable[[Any], None],
) -> Iterator[Result | Died[Job]]:
    """Do jobs in processes of their own, each taking the next when it has done one.

    Args:
        jobs: in this order.
        work: does one, in a process; is given a function that passes on what `heard` is to be told, and that raises
            `Stopped` when it shall end. What it raises itself is raised here.
        processes: how many.
        heard: is told, in this process.

    Yields:
        What the jobs gave, as they end.
    """
    queue = deque(jobs)
    # Started afresh: a fork would share what threads of PyTorch and FFmpeg hold.
    context = multiprocessing.get_context("spawn")
    running = [_Worker(context, work, queue.popleft()) for _ in range(min(processes, len(queue)))]
    try:
        while running:
            for connection in wait([worker.connection for worker in running]):
                worker = next(each for each in running if each.connection is connection)
                try:
                    kind, said = worker.connection.recv()
                except (EOFError, ConnectionError):
                    running.remove(worker)
                    yield Died(worker.job, worker.status())
                    if queue:
                        running.append(_Worker(context, work, queue.popleft()))
                    continue
                if kind == "heard":
                    heard(said)
                    continue
                if kind == "failed":
                    raise said
                if queue:
                    worker.give(queue.popleft())
                else:
                    worker.end()
                    running.remove(worker)
                yield said
    finally:
        for worker in running:
            worker.end()


class _Worker(Generic[Job]):
    """A process, its end of the line, and what it is at."""

    def __init__(self, context: Any, work: Callable[..., Any], job: Job) -> None:
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.give(job)

    def give(self, job: Job) -> None:
        self.job = job
        with suppress(OSError):  # it is dead, which the next look at its end of the line tells
            self.connection.send(job)

    def status(self) -> int:
        self.process.join()
        return self.process.exitcode or 0

    def end(self) -> None:
        """Tell the process to end, which it does at the next word that it says."""
        with suppress(OSError):
            self.connection.send(None)
        self.connection.close()
        self.process.join()


def _serve(line: Connection[Any, Any], work: Callable[..., Any]) -> None:
    """Do what comes along the line until None does, or the other end dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and hangs up

    def say(what: Any, kind: str = "heard") -> None:
        try:
            if line.poll() and kind == "heard":  # while a job is done only the end is sent
                raise Stopped
            line.send((kind, what))
        except (OSError, EOFError):
            raise Stopped from None

    try:
        while True:
            job = line.recv()
            if job is None:
                return
            try:
                result = work(job, say)
            except UserError as error:
                say(error, "failed")
                return
            say(result, "done")
    except (EOFError, OSError, Stopped):
        return
