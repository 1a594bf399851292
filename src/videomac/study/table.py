"""The table of a study: every row beside the first one, at every stage, of the runs that are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from videomac.study.plan import Expectation, Row, Study
from videomac.study.runs import Run, runs_of
from videomac.study.scores import Difference, difference, object_scores, total_score
from videomac.utils.io import atomic_write
from videomac.utils.reading import read_text, reading
from videomac.utils.run_dir import write_rows

PROBE = {"linear_top1": "linear probe", "knn_top1": "k-NN"}


@dataclass(frozen=True)
class Cell:
    """A row at a stage.

    Attributes:
        stage: of the features.
        seeds: of the runs that are judged there.
        scores: J&F of each of them, in percent.
        gained: to the first row, over the seeds that both have; None for the first row, or without such a seed.
        verdict: on what the paper says; empty where it says nothing, or nothing can be said yet.
    """

    stage: int
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    gained: Difference | None
    verdict: str


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        name: of the row.
        paper: J&F in percent that the paper prints.
        expect: what the paper says of it beside the first one.
        cells: one a stage, in the study's order.
        probe: means over the seeds that are probed, in percent.
    """

    name: str
    paper: float | None
    expect: Expectation | None
    cells: tuple[Cell, ...]
    probe: dict[str, float]


def lines_of(study: Study, out: Path) -> list[Line]:
    """Read the numbers of all runs that are judged.

    Raises:
        UserError: a file of a run is damaged.
    """
    runs = list(runs_of(study, out))
    cells = {stage: _cells(study, runs, stage) for stage in study.stages}
    return [
        Line(
            row.name, row.paper, row.expect, tuple(cells[stage][row.name] for stage in study.stages), _probe(row, runs)
        )
        for row in study.rows
    ]


def _cells(study: Study, runs: Sequence[Run], stage: int) -> dict[str, Cell]:
    judged = {(run.row.name, run.seed): run.judgement(stage) for run in runs if _is_finished(run.judgement(stage))}
    objects = {key: object_scores(folder) for key, folder in judged.items()}
    first = study.rows[0].name
    cells = {}
    for row in study.rows:
        seeds = tuple(seed for seed in study.seeds if (row.name, seed) in judged)
        both = [seed for seed in seeds if (first, seed) in judged]
        gained = None
        if row.name != first and both:
            gained = difference([objects[row.name, seed] for seed in both], [objects[first, seed] for seed in both])
        verdict = gained.verdict(row.expect) if gained is not None and row.expect is not None else ""
        cells[row.name] = Cell(stage, seeds, tuple(total_score(judged[row.name, s]) for s in seeds), gained, verdict)
    return cells


def _probe(row: Row, runs: Iterable[Run]) -> dict[str, float]:
    found = []
    for run in runs:
        if run.row == row and _is_finished(run.probe):
            with reading(run.probe / "metrics.json"):
                found.append(json.loads(read_text(run.probe / "metrics.json")))
    return {key: 100 * mean(float(numbers[key]) for numbers in found) for key in PROBE} if found else {}


def _is_finished(folder: Path) -> bool:
    return (folder / "metrics.json").is_file()


def verdicts(lines: Sequence[Line]) -> dict[str, int]:
    """How many of the paper's claims are seen, not seen and undecided, at the first stage."""
    said = [line.cells[0].verdict for line in lines]
    return {verdict: said.count(verdict) for verdict in ("seen", "not seen", "undecided")}


def write_table(study: Study, lines: Sequence[Line], out: Path) -> str:
    """Write `table.md`, `table.csv`, `table.json` and `runs.csv`.

    Returns:
        the table in Markdown.
    """
    text = markdown(study, lines)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(out / "table.json") as temporary:
        content = {"title": study.title, "rows": [asdict(line) for line in lines]}
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    write_rows(out / "table.csv", [_flat(line, cell) for line in lines for cell in line.cells])
    singles = [
        {"row": line.name, "seed": seed, "stage": cell.stage, "J&F": score}
        for line in lines
        for cell in line.cells
        for seed, score in zip(cell.seeds, cell.scores, strict=True)
    ]
    write_rows(out / "runs.csv", singles or [{"row": "", "seed": "", "stage": "", "J&F": ""}])
    return text


def _flat(line: Line, cell: Cell) -> dict[str, Any]:
    gained = cell.gained
    return {
        "row": line.name,
        "paper": "" if line.paper is None else line.paper,
        "stage": cell.stage,
        "runs": len(cell.scores),
        "J&F": mean(cell.scores) if cell.scores else "",
        "standard deviation": stdev(cell.scores) if len(cell.scores) > 1 else "",
        "difference": "" if gained is None else gained.mean,
        "low": "" if gained is None else gained.low,
        "high": "" if gained is None else gained.high,
        "paper says": line.expect or "",
        "verdict": cell.verdict,
        **{name: line.probe.get(key, "") for key, name in PROBE.items() if line.probe},
    }


def markdown(study: Study, lines: Sequence[Line]) -> str:
    """The table for people: J&F, the difference to the first row with its interval, and what is seen of the paper's."""
    probed = [key for key in PROBE if any(line.probe for line in lines)]
    printed, expected = (any(getattr(line, key) is not None for line in lines) for key in ("paper", "expect"))
    header = ["", *(["paper"] if printed else [])]
    for stage in study.stages:
        header += [f"J&F, stage {stage}", "difference", *(["the paper's order"] if expected else [])]
    header += [PROBE[key] for key in probed]
    body = [
        [
            line.name,
            *(["" if line.paper is None else f"{line.paper:.1f}"] if printed else []),
            *(text for cell in line.cells for text in _texts(line, cell)[: 3 if expected else 2]),
            *(f"{line.probe[key]:.1f}" if line.probe else "" for key in probed),
        ]
        for line in lines
    ]
    rows = [header, ["---"] * len(header), *body]
    done = min(len(cell.scores) for line in lines for cell in line.cells)
    whole = done == len(study.seeds)
    seeds = f"of which each row has {len(study.seeds)}" if whole else "some of which are missing: see runs.csv"
    notes = (
        f"J&F in percent, mean ± standard deviation over seeds, {seeds}. Differences are to the row "
        f"“{study.rows[0].name}”, with a paired 95 % bootstrap interval over seeds and sequences."
    )
    if expected:
        notes += (
            " The paper's order is seen if the interval lies on its side of 0, not seen if on the other; of a row that "
            "it calls as good, if the interval lies within two points."
        )
    return "\n".join([f"# {study.title}", "", *("| " + " | ".join(row) + " |" for row in rows), "", notes, ""])


def _texts(line: Line, cell: Cell) -> tuple[str, str, str]:
    if not cell.scores:
        return "", "", ""
    spread = f" ± {stdev(cell.scores):.1f}" if len(cell.scores) > 1 else ""
    gained = cell.gained
    apart = "" if gained is None else f"{gained.mean:+.1f} ({gained.low:+.1f} to {gained.high:+.1f})"
    said = f"{line.expect}: {cell.verdict}" if cell.verdict else ""
    return f"{mean(cell.scores):.1f}{spread}", apart, said
