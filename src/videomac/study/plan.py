"""A study as its file has it: a base, rows that change one thing of it each, seeds, and how every run is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from videomac.classify.config import ProbeConfig
from videomac.errors import UserError
from videomac.evaluate.config import EvalDavisConfig
from videomac.train.config import PretrainConfig
from videomac.utils.checks import shown
from videomac.utils.names import require_names
from videomac.utils.parsing import suggestion
from videomac.utils.yaml_text import read

Expectation = Literal["worse", "better", "as good"]
EXPECTATIONS: tuple[Expectation, ...] = ("worse", "better", "as good")
KEYS = ("command", "title", "base", "rows", "seeds", "davis", "probe")
ROW_KEYS = ("name", "options", "paper", "expect")
SET_BY_THE_STUDY = {
    "pretrain": frozenset({"data", "out", "seed", "resume", "overwrite"}),
    "davis": frozenset({"data", "out", "backbone", "stage", "resume", "overwrite"}),
    "probe": frozenset({"data", "out", "backbone", "resume", "overwrite"}),
}
"""Options that a study gives itself, and its file may not."""
MOST_SEEDS, MOST_ROWS = 100, 1000


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the row, and of the folder of its runs.
        options: of `videomac pretrain`, in place of the base's.
        paper: J&F that the paper prints for it, in percent; None if it prints none.
        expect: what the paper says of the row beside the first one; None: nothing.
    """

    name: str
    options: dict[str, Any]
    paper: float | None
    expect: Expectation | None


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Attributes:
        title: of the table.
        base: options of `videomac pretrain` that all runs have.
        rows: at least two; the others are compared with the first.
        seeds: of the runs of every row.
        stages: at which features are judged; the first one counts for what is said of the paper's claims.
        davis: further options of `videomac eval davis`.
        probe: options of `videomac probe`; None: no probe.
    """

    title: str
    base: dict[str, Any]
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    stages: tuple[int, ...]
    davis: dict[str, Any]
    probe: dict[str, Any] | None

    def pretraining(self, row: Row, seed: int, data: Path, out: Path) -> PretrainConfig:
        """The options of a run; repeated, it goes on where it was.

        Raises:
            UserError: they cannot work.
        """
        return PretrainConfig(**{**self.base, **row.options}, data=data, out=out, seed=seed, resume="auto")

    def judgement(self, stage: int, backbone: str, data: Path, out: Path, **more: Any) -> EvalDavisConfig:
        """The options of a judgement at one stage.

        Raises:
            UserError: they cannot work.
        """
        options = {"videos": False, **self.davis, **more}
        return EvalDavisConfig(**options, data=data, backbone=backbone, out=out, stage=stage)

    def probing(self, backbone: str, data: Path, out: Path) -> ProbeConfig:
        """The options of a probe.

        Raises:
            UserError: they cannot work.
        """
        return ProbeConfig(**(self.probe or {}), data=data, backbone=backbone, out=out)

    def as_plain(self) -> dict[str, Any]:
        """The same as the values of a YAML file, complete."""
        rows = [
            {"name": row.name, "options": row.options, "paper": row.paper, "expect": row.expect} for row in self.rows
        ]
        return {
            "title": self.title,
            "base": self.base,
            "rows": rows,
            "seeds": list(self.seeds),
            "davis": {"stages": list(self.stages), **self.davis},
            "probe": self.probe,
        }


def read_study(path: Path) -> Study:
    """Read a study's file, and refuse what could not be run to its end.

    Raises:
        UserError: there is no such file, it is not YAML, a key or an option is unknown or has a wrong value, two rows
            have one name, or a name is none that a folder can have.
    """
    try:
        found = read(path)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from error
    return as_study(found, path)


def as_study(found: Any, path: Path) -> Study:
    """Make a study of the values of a file.

    Args:
        found: the values.
        path: of the file, for messages.

    Raises:
        UserError: as in `read_study`.
    """
    top = _mapping(found, path, "a study", KEYS)
    if top.get("command", "study") != "study":
        raise UserError(
            f"{path} was written by `videomac {top['command']}`: name a study, such as one of configs/studies"
        )
    title, base = top.get("title") or path.stem, _options(top.get("base"), path, "base", PretrainConfig, "pretrain")
    if not isinstance(title, str):
        raise UserError(f"{path}: title must be text, but is {shown(title)}")
    davis = dict(_mapping(top.get("davis", {}), path, "davis"))
    stages = _numbers(davis.pop("stages", [3]), path, "stages of davis", least=1)
    davis = _options(davis, path, "davis", EvalDavisConfig, "davis")
    probe = top.get("probe")
    probe = None if probe is None else _options(probe, path, "probe", ProbeConfig, "probe")
    seeds = _numbers(top.get("seeds", [0, 1, 2]), path, "seeds", least=0)
    study = Study(title, base, _rows(top.get("rows"), path), seeds, stages, davis, probe)
    _try_all(study, path)
    return study


def _rows(found: Any, path: Path) -> tuple[Row, ...]:
    if not isinstance(found, list) or not 2 <= len(found) <= MOST_ROWS:
        raise UserError(f"{path}: rows must be a list of at least two; the others are held to the first")
    entries = [_mapping(entry, path, f"row {number}", ROW_KEYS) for number, entry in enumerate(found, 1)]
    names = [entry.get("name") for entry in entries]
    for number, name in enumerate(names, 1):
        if not isinstance(name, str):
            raise UserError(f"{path}: row {number} needs a name, a text, but has {shown(name)}")
    require_names([str(name) for name in names], path)
    folded = [str(name).casefold() for name in names]  # as file systems may see them
    if twice := [name for name, key in zip(names, folded, strict=True) if folded.count(key) > 1]:
        raise UserError(f"{path}: two rows have the name {twice[0]!r}: rename one")
    papers = [_paper(entry.get("paper"), path, str(entry["name"])) for entry in entries]
    rows = []
    for entry, paper in zip(entries, papers, strict=True):
        where = f"row {entry['name']!r}"
        options = _options(entry.get("options"), path, where, PretrainConfig, "pretrain")
        rows.append(Row(str(entry["name"]), options, paper, _expectation(entry, paper, papers[0], path)))
    if rows[0].expect is not None:
        raise UserError(f"{path}: row {rows[0].name!r} is the first, to which the others are held: leave out expect")
    return tuple(rows)


def _paper(value: Any, path: Path, name: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100):
        raise UserError(f"{path}: paper of row {name!r} must be J&F in percent, but is {shown(value)}")
    return None if value is None else float(value)


def _expectation(entry: Mapping[str, Any], paper: float | None, first: float | None, path: Path) -> Expectation | None:
    """What a row is said to be beside the first one: as its file has it, or as the paper's numbers have it."""
    given = entry.get("expect")
    if given is not None and given not in EXPECTATIONS:
        raise UserError(f"{path}: expect of row {entry['name']!r} must be one of {', '.join(EXPECTATIONS)}")
    if given is not None or paper is None or first is None or paper == first:
        return given
    return "worse" if paper < first else "better"


def _options(found: Any, path: Path, where: str, config: type[Any], kind: str) -> dict[str, Any]:
    """A mapping of options of a command, without those that the study sets."""
    known = {field.name for field in fields(config)}
    options = _mapping({} if found is None else found, path, where)
    for key in options:
        if key not in known:
            raise UserError(f"{path}: {where} has an unknown option {key!r}{suggestion(key, known)}")
        if key in SET_BY_THE_STUDY[kind]:
            raise UserError(f"{path}: {where} may not give {key}, which the study sets itself: leave it out")
    return dict(options)


def _mapping(found: Any, path: Path, where: str, keys: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path}: {where} must hold lines such as `name: value`, but is {shown(found)}")
    for key in found:
        if keys and key not in keys:
            raise UserError(f"{path}: {where} has an unknown key {key!r}{suggestion(key, keys)}")
    return found


def _numbers(found: Any, path: Path, where: str, least: int) -> tuple[int, ...]:
    numbers = found if isinstance(found, list) else [found]
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= least for number in numbers)
    if not whole or not 1 <= len(set(numbers)) == len(numbers) <= MOST_SEEDS:
        raise UserError(f"{path}: {where} must be different whole numbers from {least}, but is {shown(found)}")
    return tuple(numbers)


def _try_all(study: Study, path: Path) -> None:
    """Make every config once, as a run will.

    Raises:
        UserError: says of which row an option cannot work.
    """
    for row in study.rows:
        try:
            study.pretraining(row, study.seeds[-1], Path("data"), Path("out"))
        except (UserError, TypeError) as error:  # a TypeError: the backbone is missing
            raise UserError(f"{path}: row {row.name!r} cannot be run: {error}") from error
    try:
        study.judgement(study.stages[0], "backbone", Path("data"), Path("out"))
        study.probing("backbone", Path("data"), Path("out"))
    except UserError as error:
        raise UserError(f"{path}: its runs cannot be judged: {error}") from error
