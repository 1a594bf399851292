"""Work in processes: all of it is done, what dies is told, what fails is raised."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from videomac.errors import UserError
from videomac.prepare.processes import Died, work_through

pytestmark = [pytest.mark.usefixtures("forked"), pytest.mark.skipif(os.name == "nt", reason="forks and signals")]


def work(job: int, say: Callable[[Any], None]) -> int:
    say(job * 10)
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 99:
        raise UserError("the disk is full")
    return job * job


@pytest.mark.parametrize("processes", [1, 2, 20])
def test_every_job_is_done_and_a_dead_process_costs_its_own(processes: int) -> None:
    heard: list[int] = []
    results = list(work_through(range(8), work, processes, heard.append))
    assert sorted(each for each in results if isinstance(each, int)) == [0, 1, 4, 16, 25, 36, 49]
    assert [each for each in results if isinstance(each, Died)] == [Died(3, -signal.SIGKILL)]
    assert sorted(heard) == [job * 10 for job in range(8)]


def test_what_a_job_raises_is_raised_here() -> None:
    with pytest.raises(UserError, match="the disk is full"):
        list(work_through([1, 99, 2, 4], work, 2, lambda _: None))


def test_no_jobs_are_no_processes() -> None:
    assert list(work_through([], work, 4, lambda _: None)) == []
