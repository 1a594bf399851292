"""The runs of a study: their folders, and what is done of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from videomac.study.plan import Row, Study


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes:
        row: of the study.
        seed: of the study.
        folder: that holds everything of the run.
    """

    row: Row
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def pretraining(self) -> Path:
        """The out folder of `pretrain`."""
        return self.folder / "pretrain"

    def judgement(self, stage: int) -> Path:
        """The out folder of `eval davis` at a stage."""
        return self.folder / f"davis-stage{stage}"

    @property
    def probe(self) -> Path:
        """The out folder of `probe`."""
        return self.folder / "probe"

    def missing(self, study: Study) -> list[Path]:
        """The out folders of those commands that have not ended; the last file that one writes is its numbers."""
        folders = [
            self.pretraining,
            *map(self.judgement, study.stages),
            *([self.probe] if study.probe is not None else []),
        ]
        return [folder for folder in folders if not (folder / "metrics.json").is_file()]


def runs_of(study: Study, out: Path) -> Iterator[Run]:
    """All runs, every row with one seed before the next seed: what an interrupted study has is balanced."""
    for seed in study.seeds:
        for row in study.rows:
            yield Run(row, seed, out / "runs" / row.name / f"seed{seed}")
