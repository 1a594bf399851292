"""`videomac study`: pre-train and judge all rows with all seeds, and set them in one table."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from videomac.classify.images import find_images
from videomac.errors import UserError
from videomac.evaluate.benchmarks import davis
from videomac.reporting import command as report
from videomac.reporting.config import ReportConfig
from videomac.study.config import StudyConfig
from videomac.study.estimate import estimate
from videomac.study.figure import draw
from videomac.study.plan import Study, read_study
from videomac.study.processes import make_all
from videomac.study.runs import Run, runs_of
from videomac.study.store import hold_table, settle
from videomac.study.table import Line, lines_of, verdicts, write_table
from videomac.train.data import PretrainingData
from videomac.train.pretrain import build_model
from videomac.utils.faults import told_in_a_sentence
from videomac.utils.run_dir import write_metrics


def run(config: StudyConfig) -> list[Line]:
    """Pre-train and judge what is missing of a study, then make its table.

    Args:
        config: the options.

    Returns:
        the lines of the table; none for a dry run, or a part.

    Raises:
        UserError: a mistake in the study, unusable data, a changed study, or runs that failed.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the runs have saved.
    """
    plan = read_study(config.study)
    runs = list(runs_of(plan, config.out))
    part, parts = config.share
    mine = runs[part::parts]
    missing = [each for each in mine if each.missing(plan)]
    if config.dry_run:
        _require_inputs(config, plan)
        _print_plan(config, plan, mine, missing)
        return []
    with told_in_a_sentence(config.out):
        if missing and not config.gather:
            _require_inputs(config, plan)
        settle(plan, config.out)
        if not config.gather:
            _make(config, plan, mine, missing)
        return _gather(config, plan, runs) if parts == 1 or config.gather else []


def _require_inputs(config: StudyConfig, plan: Study) -> None:
    """Refuse what would stop a run later: benchmark, images, and the network and the pairs of every row.

    Raises:
        UserError: says what.
    """
    assert config.data is not None and config.benchmark is not None
    judgement = plan.judgement(plan.stages[0], "backbone", config.benchmark, config.out)
    sequences = davis.find(judgement.data, judgement.split, judgement.resolution, judgement.sequences)
    if len(sequences) < 2:
        raise UserError(f"{config.study} judges on one sequence, which gives no interval: take at least two")
    for sequence in sequences:
        davis.frames_of(judgement.data, judgement.resolution, sequence)
    if plan.probe is not None:
        if config.images is None:
            raise UserError("this study probes: name a folder of images with --images")
        find_images(config.images)
    for row in plan.rows:
        try:
            whole = replace(plan.pretraining(row, plan.seeds[0], config.data, config.out), cache=0.0)
            PretrainingData(whole, build_model(whole))
        except UserError as error:
            raise UserError(f"row {row.name!r} of {config.study} cannot be run: {error}") from error


def _print_plan(config: StudyConfig, plan: Study, mine: Sequence[Run], missing: Sequence[Run]) -> None:
    stages = ", ".join(map(str, plan.stages))
    print(f"{plan.title}: {len(plan.rows)} rows, seeds {', '.join(map(str, plan.seeds))}, judged at stages {stages}")
    for row in plan.rows:
        changed = ", ".join(f"{key}: {value}" for key, value in row.options.items()) or "the base"
        print(f"  {row.name}: {changed}")
    took = estimate(config, plan)
    print(
        f"{len(mine)} runs in this part, {len(missing)} of them to be made, {config.jobs} at a time.\n"
        f"A run like the first row's takes {took.steps:,} steps of {took.seconds_per_step:.2f} s, and the judgement of "
        f"{took.frames:,} frames at {took.seconds_per_frame:.3f} s: about {_time(took.seconds)}"
        f"{' (without its probe)' if plan.probe is not None else ''}.\n"
        f"All of them: about {_time(took.seconds * len(missing) / config.jobs)}."
    )


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _make(config: StudyConfig, plan: Study, mine: Sequence[Run], missing: Sequence[Run]) -> None:
    """Make the runs that are missing.

    Raises:
        UserError: some failed; all others were made.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    if len(missing) < len(mine):
        print(f"{len(mine) - len(missing)} of {len(mine)} runs are done already", flush=True)
    ended = len(mine) - len(missing)

    def heard(said: str) -> None:
        nonlocal ended
        ended += 1
        if not sys.stderr.isatty():
            print(f"{ended} of {len(mine)} runs: {said}", flush=True)

    try:
        failures = make_all(config, missing, len(mine), heard)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped with {ended} of {len(mine)} runs done; what others had is saved: the same command goes on"
        ) from None
    if failures:
        first = failures[0]
        raise UserError(
            f"{len(failures)} of {len(mine)} runs failed, such as {first.run.name}: {first.reason}; the others are "
            "kept: mend that, then run the same command"
        )


def _gather(config: StudyConfig, plan: Study, runs: Sequence[Run]) -> list[Line]:
    """Write the table, the figure and the page of what is there, and print the table.

    Raises:
        UserError: nothing is there yet, or another call writes the table.
    """
    lines = lines_of(plan, config.out)
    if not any(cell.scores for line in lines for cell in line.cells):
        raise UserError(f"no run in {config.out} has been judged yet: make some first")
    unfinished = sum(bool(each.missing(plan)) for each in runs)
    with hold_table(config.out):
        text = write_table(plan, lines, config.out)
        draw(plan, lines, config.out / "study.png")
        if not unfinished:
            write_metrics(config.out, {"runs": len(runs), **verdicts(lines)})
        with contextlib.redirect_stdout(io.StringIO()):
            report.run(ReportConfig(folder=config.out, overwrite=True))
    print(text, end="")
    if unfinished:
        print(f"{unfinished} of {len(runs)} runs are missing.")
    print(f"In {config.out}: table.md, table.csv, table.json, runs.csv, study.png, report.html")
    return lines
