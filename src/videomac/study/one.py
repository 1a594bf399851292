"""One run of a study, in a process of its own: `python -m videomac.study.one OUT ROW SEED DATA BENCHMARK [IMAGES]`.

A process gives its memory back, can have one thread, and takes nothing else with it when it is killed.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from videomac.classify import probe
from videomac.errors import UserError
from videomac.evaluate.benchmarks import davis
from videomac.study.lifeline import end_with_the_study
from videomac.study.plan import Study
from videomac.study.runs import Run, runs_of
from videomac.study.store import read_stored
from videomac.train import pretrain
from videomac.utils.run_dir import hold

PATIENCE = 60
"""Seconds that a run's folder may be held by another process."""


def make(study: Study, run: Run, data: Path, benchmark: Path, images: Path | None) -> None:
    """Pre-train and judge a row with a seed; what is there already stays.

    Args:
        study: the plan.
        run: the row and the seed.
        data: videos.
        benchmark: data set in DAVIS layout.
        images: for a study that probes.

    Raises:
        UserError: an option that cannot work, unusable data, another process that makes the same run.
    """
    with ExitStack() as stack:
        _take(run.folder, stack)
        missing = run.missing(study)
        if run.pretraining in missing:
            pretrain.run(study.pretraining(run.row, run.seed, data, run.pretraining))
        judge(study, run, benchmark, missing)
        if run.probe in missing and images is not None:
            probe.run(study.probing(str(run.pretraining), images, run.probe))


def _take(folder: Path, stack: ExitStack) -> None:
    """Hold a run's folder; a process of a study that has been killed may still be saving there.

    Raises:
        UserError: it is held for longer than that takes.
    """
    for _ in range(PATIENCE):
        try:
            stack.enter_context(hold(folder))
            return
        except UserError:
            time.sleep(1)
    stack.enter_context(hold(folder))


def judge(study: Study, run: Run, benchmark: Path, missing: list[Path]) -> None:
    """Carry the benchmark's first masks along with the run's features, at those stages that are missing."""
    configs = [
        study.judgement(
            stage,
            str(run.pretraining),
            benchmark,
            run.judgement(stage),
            resume=(run.judgement(stage) / "config.yaml").is_file(),
        )
        for stage in sorted(study.stages)
        if run.judgement(stage) in missing
    ]
    if not configs:
        return
    with ExitStack() as stack:
        for config in configs:
            stack.enter_context(hold(config.out))
        davis.run_stages(configs)


def main(arguments: list[str]) -> int:
    """Make the run that the arguments name; return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # training saves first: it has a handler of its own
    out, row, seed, data, benchmark, *images = arguments
    try:
        study = read_stored(Path(out))
        run = next(run for run in runs_of(study, Path(out)) if (run.row.name, str(run.seed)) == (row, seed))
        make(study, run, Path(data), Path(benchmark), Path(images[0]) if images else None)
    except UserError as error:
        print(f"videomac: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"videomac: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    end_with_the_study()
    sys.exit(main(sys.argv[1:]))
