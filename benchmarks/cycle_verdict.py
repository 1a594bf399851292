"""Does the score without labels say rightly whether a run is better than its own random weights? For docs/cycle.md.

    python benchmarks/cycle_verdict.py --davis DAVIS --out OUT --study STUDY_OUT [STUDY_OUT ...] --random STUDY_OUT

Takes the finished runs of studies that were judged at stages 2 and 3 (`videomac study`), and one that has the row
"random weights" with the same seeds (configs/studies/small/failures.yaml). J&F and the score are those of the sequences
that the score was not designed on. Finished numbers are kept.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cycle_table import SEQUENCES, clips_of, links

from videomac.evaluate.cycle import extractor_of, interval, travel
from videomac.evaluate.cycle_networks import initialisation_of
from videomac.models.resolve import resolve

RANDOM = "random weights"
STAGES = (2, 3)


def runs(studies: list[Path]) -> Iterator[tuple[str, int, Path]]:
    """Row, seed and folder of each finished run that has learned, or should have."""
    for study in studies:
        for path in sorted(study.glob("runs/*/seed*/davis-stage3/metrics.json")):
            folder = path.parents[1]
            if folder.parent.name != RANDOM:
                yield folder.parent.name, int(folder.name.removeprefix("seed")), folder


def quality(folder: Path, stage: int) -> float:
    """J&F in percent, mean over the objects of the sequences."""
    with (folder / f"davis-stage{stage}" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["Sequence"].rsplit("_", 1)[0] in SEQUENCES]
    return 100 * float(np.mean([(float(row["J-Mean"]) + float(row["F-Mean"])) / 2 for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--study", type=Path, nargs="+", required=True)
    parser.add_argument("--random", type=Path, required=True)
    arguments = parser.parse_args()
    _, footage = links(arguments.davis, arguments.out)
    clips = list(clips_of(footage))
    found = {}
    for row, seed, folder in runs(arguments.study):
        run = str(folder / "pretrain")
        backbone = resolve(run)[0]
        for name, network in ((row, backbone), (RANDOM, initialisation_of(run, backbone, seed))):
            for stage in STAGES:
                path = arguments.out / f"{name}, seed {seed}, stage {stage}.json"
                if not path.is_file():
                    extractor = extractor_of(network, stage, 8, required=False)
                    path.write_text(json.dumps([travel(extractor, clip).score for clip in clips]))
                found[name, seed, stage] = np.array(json.loads(path.read_text()))

    print("| run | seed | stage | J&F gained | score gained | 95 % of draws | |\n|---|---|---|---|---|---|---|")
    said = []
    for row, seed, folder in runs(arguments.study):
        before = arguments.random / "runs" / RANDOM / f"seed{seed}"
        for stage in STAGES:
            gained = quality(folder, stage) - quality(before, stage)
            lead = found[row, seed, stage] - found[RANDOM, seed, stage]
            low, high = interval(lead)
            same = "undecided" if low <= 0 <= high else "right" if (low > 0) == (gained > 0) else "wrong"
            said.append(same)
            numbers = f"{gained:+.1f} | {lead.mean():+.3f} | {low:+.3f} to {high:+.3f}"
            print(f"| {row} | {seed} | {stage} | {numbers} | {same} |")
    print(
        f"\n{len(said)} in all: " + ", ".join(f"{said.count(word)} {word}" for word in ("right", "wrong", "undecided"))
    )


if __name__ == "__main__":
    main()
