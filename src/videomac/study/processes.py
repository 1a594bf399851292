"""The runs of a study in processes: some at a time, stopped together, and one that fails stops no other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from videomac.study.config import StudyConfig
from videomac.study.runs import Run

LOG = "log.txt"
"""What a run's process says, in the run's folder."""
SECONDS = 0.5
"""Between two looks at the processes."""


@dataclass(frozen=True)
class Failure:
    """A run that did not come to its end.

    Attributes:
        run: it.
        reason: the last that its process said.
    """

    run: Run
    reason: str


def make_all(config: StudyConfig, runs: Sequence[Run], total: int, heard: Callable[[str], None]) -> list[Failure]:
    """Make runs, `config.jobs` at a time.

    Args:
        config: the options.
        runs: those that are missing, in this order.
        total: runs of this call, with those that are there already.
        heard: is told of each run that ends.

    Returns:
        the runs that failed.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when every process has saved and ended.
    """
    waiting, failures = list(runs), list[Failure]()
    active: list[_Process] = []
    bar = tqdm(
        total=total,
        bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}]{postfix}",
        initial=total - len(runs),
        smoothing=0,
        disable=not sys.stderr.isatty(),
        dynamic_ncols=True,
    )
    with bar, _until_told_to_stop():
        try:
            while waiting or active:
                while waiting and len(active) < config.jobs:
                    active.append(_Process(config, waiting.pop(0)))
                time.sleep(SECONDS)
                for process in [each for each in active if each.ended()]:
                    active.remove(process)
                    if failure := process.failure():
                        failures.append(failure)
                    heard(process.run.name + (f" failed: {failure.reason}" if failure else " is done"))
                left = len(waiting) + sum(1 - process.share() for process in active)
                bar.n = total - left
                bar.set_postfix_str("; ".join(process.run.name for process in active))
        finally:
            for process in active:
                process.stop()
            for process in active:
                process.wait()
    return failures


@contextmanager
def _until_told_to_stop() -> Any:
    """Let SIGTERM, which schedulers send, do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Process:
    """The process of one run."""

    def __init__(self, config: StudyConfig, run: Run) -> None:
        self.run = run
        run.folder.mkdir(parents=True, exist_ok=True)
        places = [config.data, config.benchmark, *([config.images] if config.images is not None else [])]
        words = [str(config.out), run.row.name, str(run.seed), *map(str, places)]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if config.jobs > 1 else {}
        self._log: IO[str] = (run.folder / LOG).open("a+", encoding="utf-8", errors="replace")
        self._log.seek(0, os.SEEK_END)
        self._begin = self._log.tell()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "videomac.study.one", *words],
            # It ends when this pipe does, and so when this process is killed.
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **threads},
            # Ctrl-C reaches it through `stop` alone: a second one would end it without saving.
            start_new_session=True,
        )

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask the process to save and to end."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def wait(self) -> int:
        """Wait for its end, and return its status."""
        with self._process as process, self._log:
            return process.wait()

    def share(self) -> float:
        """How much of the run is done, by what it last said of its steps; judging counts for nothing."""
        found = re.findall(r"^step ([\d,]+)/([\d,]+),", self._tail(), re.MULTILINE)
        if not found:
            return 0.0
        step, steps = (int(number.replace(",", "")) for number in found[-1])
        return min(0.99, step / max(1, steps))

    def failure(self) -> Failure | None:
        """What went wrong, if something did; the process has ended."""
        said = [line.strip() for line in self._tail().splitlines() if line.strip()]
        if (status := self.wait()) == 0:
            return None
        last = said[-1].removeprefix("videomac: error: ") if said else ""
        if status < 0:
            last = f"its process was killed by signal {-status}"
        return Failure(self.run, f"{last or f'status {status}'} (see {self.run.folder / LOG})")

    def _tail(self, characters: int = 4096) -> str:
        """The end of what the process has said."""
        size = os.fstat(self._log.fileno()).st_size
        with Path(self._log.name).open("rb") as file:
            file.seek(max(self._begin, size - characters))
            return file.read().decode("utf-8", "replace")
