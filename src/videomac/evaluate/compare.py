"""One table of several evaluations, with the numbers of the paper's Table 1 beside them."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videomac.config import read_config
from videomac.errors import UserError
from videomac.evaluate.config import CompareConfig
from videomac.evaluate.protocols import EvalProtocol
from videomac.utils.reading import read_text, reading
from videomac.utils.run_dir import prepare_out_dir, write_rows

COLUMNS = {
    "davis": ("J&F-Mean", "J-Mean", "F-Mean"),
    "vip": ("mIoU",),
    "jhmdb": ("PCK@0.1", "PCK@0.2"),
}

# Method, type, backbone, then DAVIS J&F, J, F, VIP mIoU, JHMDB PCK@0.1 and 0.2, in percent.
PAPER: tuple[tuple[str, str, float, float, float, float | None, float | None, float | None], ...] = (
    ("Supervised", "ResNet-50", 66.0, 63.7, 68.4, 39.5, 59.2, 78.3),
    ("DenseCL", "ResNet-50", 61.1, 59.8, 62.6, 32.5, 56.1, 78.0),
    ("DINO", "ViT-S/16", 61.8, 60.2, 63.4, 36.2, 45.6, 75.0),
    ("ODIN2", "ResNet-50", 54.1, 54.3, 53.9, None, None, None),
    ("CrOC", "ViT-S/16", 44.7, 43.5, 45.9, 26.1, None, None),
    ("MAE", "ViT-B/16", 53.5, 52.1, 55.0, 28.1, 44.6, 73.4),
    ("FCMAE", "ConvNeXt V2-B", 43.7, 41.9, 45.5, 24.9, 51.7, 74.2),
    ("RC-MAE", "ViT-S/16", 49.2, 48.9, 50.5, 29.7, 43.2, 72.3),
    ("SparK", "ResNet-50", 55.6, 56.3, 54.9, 32.8, 52.9, 75.2),
    ("MAE-ST", "ViT-L/16", 54.6, 55.5, 53.6, 33.2, 44.4, 72.5),
    ("VideoMAE", "ViT-S/16", 39.3, 39.7, 38.9, 22.3, 41.0, 67.9),
    ("DropMAE", "ViT-B/16", 53.4, 51.8, 55.0, 31.1, 42.3, 69.2),
    ("SiamMAE", "ViT-S/16", 62.0, 60.3, 63.7, 37.3, 47.0, 76.1),
    ("VideoMAC", "ResNet-50", 67.2, 64.9, 69.5, 43.6, 57.2, 79.2),
    ("VideoMAC", "ConvNeXt V2-S", 68.4, 65.3, 71.4, 40.4, 58.1, 80.0),
)

PAPER_DAVIS_OBJECTS = 61


@dataclass(frozen=True)
class EvalRun:
    """One evaluation: its settings and its numbers."""

    folder: Path
    settings: dict[str, Any]
    numbers: dict[str, float]
    scored: tuple[str, ...] = ()

    def setting(self, key: str) -> Any:
        """A setting of the evaluation, or what it scored (objects, or videos) for "videos"."""
        return self.scored if key == "videos" else self.settings.get(key)

    @property
    def name(self) -> str:
        """Backbone and where its weights are from."""
        weights = self.settings["weights"]
        return str(self.settings["features"]["backbone"]) + ("" if weights == "none" else f", {weights}")

    @property
    def features(self) -> str:
        """Stage and grid stride."""
        return f"{self.settings['features']['stage']}, stride {self.settings['features']['stride']}"

    @property
    def protocol(self) -> str:
        """The preset, with a star if settings were changed."""
        return str(self.settings["protocol"]) + ("*" if self.settings["changed_settings"] else "")


def read_run(folder: Path) -> EvalRun:
    """Read what `videomac eval` left in a folder.

    Raises:
        UserError: it is not such a folder, or the evaluation did not finish.
    """
    settings = read_config(folder, "eval")
    if settings["command"] == "eval cycle":
        raise UserError(f"{folder} was judged without labels, by no benchmark: leave it out")
    if not (folder / "metrics.json").is_file():
        raise UserError(f"the evaluation in {folder} has not finished (no metrics.json): continue it with --resume")
    with reading(folder / "metrics.json"):
        metrics = {key: float(value) for key, value in json.loads(read_text(folder / "metrics.json")).items()}
    with reading(folder):
        run = EvalRun(folder, settings, metrics, _scored(folder / "metrics.csv"))
        # All that a table asks for is there.
        _ = run.name, run.features, run.protocol, [metrics[key] for key in COLUMNS[settings["benchmark"]]]
    return run


def differences(runs: list[EvalRun]) -> dict[str, list[str]]:
    """Settings in which runs of one benchmark differ, apart from backbone, stage and stride.

    Args:
        runs: any evaluations.

    Returns:
        For each benchmark the names of the settings, "split" or "videos", that are not the same in all its runs.
    """
    ignored = {"name", "stage", "stride", "dilate", "normalization"}  # the backbone's side: shown in the table
    keys = [key for key in EvalProtocol.__dataclass_fields__ if key not in ignored] + ["split", "sequences", "videos"]
    result = {}
    for benchmark in COLUMNS:
        group = [run for run in runs if run.settings["benchmark"] == benchmark]
        found = [key for key in keys if len({str(run.setting(key)) for run in group}) > 1]
        if found:
            result[benchmark] = found
    return result


def run(config: CompareConfig) -> list[dict[str, str]]:
    """Print the table; write `compare.csv` and `compare.md` if there is an out folder.

    Args:
        config: the folders and options.

    Returns:
        The rows of the table, numbers in percent.

    Raises:
        UserError: a folder is not a finished evaluation, or `strict` and the protocols differ.
    """
    if not config.runs:
        raise UserError("nothing to compare: name folders that `videomac eval` wrote")
    runs = [read_run(folder) for folder in config.runs]
    differing = differences(runs)
    notes = [
        f"protocols differ for {benchmark} ({', '.join(keys)}): rows marked ≠ are not comparable with the first"
        for benchmark, keys in differing.items()
    ]
    if notes and config.strict:
        raise UserError(notes[0].replace("rows marked ≠", "the rows") + "; evaluate again with one protocol")
    rows = [_row(run, _marked(run, runs, differing)) for run in runs]
    benchmarks = [name for name in COLUMNS if any(run.settings["benchmark"] == name for run in runs)]
    if config.paper:
        rows += _paper_rows(benchmarks)
        notes.append("paper: Table 1 of VideoMAC, whose stage, stride and L, K, R, T are not published")
        notes += _other_than_the_papers(runs)
    if any(run.settings["changed_settings"] for run in runs):
        notes.append("*: settings of the protocol were changed, see config.yaml")
    shown = [column for name in benchmarks for column in COLUMNS[name]]
    header = ["backbone", "features", "protocol", *shown]
    table = [[row.get(column, "") for column in header] for row in rows]
    print(_aligned(header, table))
    print("\n".join(notes))
    if config.out is not None:
        prepare_out_dir(config.out, ("compare.csv", "compare.md"), overwrite=config.overwrite)
        write_rows(config.out / "compare.csv", [dict(zip(header, line, strict=True)) for line in table])
        text = _markdown(header, table) + "\n" + "".join(f"\n{n}\n" for n in notes)
        (config.out / "compare.md").write_text(text, encoding="utf-8")
    return rows


def _marked(run: EvalRun, runs: list[EvalRun], differing: dict[str, list[str]]) -> bool:
    """Whether a run's protocol is another than that of the first run of its benchmark."""
    first = next(other for other in runs if other.settings["benchmark"] == run.settings["benchmark"])
    keys = differing.get(run.settings["benchmark"], [])
    return any(run.setting(key) != first.setting(key) for key in keys)


def _scored(table: Path) -> tuple[str, ...]:
    """The first column of metrics.csv: every object (DAVIS) or video that was scored."""
    if not table.is_file():
        return ()
    with table.open(newline="", encoding="utf-8") as file:
        return tuple(sorted(row[0] for row in list(csv.reader(file))[1:] if row))


def _other_than_the_papers(runs: list[EvalRun]) -> list[str]:
    """A warning if what was scored cannot be what the paper scored."""
    counts = {len(run.scored) for run in runs if run.settings["benchmark"] == "davis"} - {PAPER_DAVIS_OBJECTS}
    if not counts:
        return []
    return [
        f"the paper's DAVIS is 2017 val ({PAPER_DAVIS_OBJECTS} objects in 30 videos), here are evaluations of "
        f"{' and '.join(map(str, sorted(counts)))} objects: not to be compared with it"
    ]


def _row(run: EvalRun, marked: bool) -> dict[str, str]:
    row = {"backbone": run.name, "features": run.features, "protocol": run.protocol + (" ≠" if marked else "")}
    return row | {key: f"{100 * run.numbers[key]:.1f}" for key in COLUMNS[run.settings["benchmark"]]}


def _paper_rows(benchmarks: list[str]) -> list[dict[str, str]]:
    """The paper's rows that have a number for one of the benchmarks."""
    columns = [column for name in COLUMNS for column in COLUMNS[name]]
    shown = {column for name in benchmarks for column in COLUMNS[name]}
    rows = []
    for method, backbone, *values in PAPER:
        numbers = {c: f"{v:.1f}" for c, v in zip(columns, values, strict=True) if v is not None and c in shown}
        if numbers:
            rows.append({"backbone": f"{method}, {backbone}", "features": "", "protocol": "paper", **numbers})
    return rows


def _aligned(header: list[str], table: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in [header, *table]) for column in range(len(header))]
    lines = []
    for line in [header, *table]:
        text, numbers = zip(line[:3], widths[:3], strict=True), zip(line[3:], widths[3:], strict=True)
        lines.append("  ".join([f"{cell:<{w}}" for cell, w in text] + [f"{cell:>{w}}" for cell, w in numbers]))
    return "\n".join(lines)


def _markdown(header: list[str], table: list[list[str]]) -> str:
    rule = ["---"] * 3 + ["---:"] * (len(header) - 3)
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *table])
