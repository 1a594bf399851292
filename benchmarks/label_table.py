"""What `videomac propagate` is worth on real videos: the tables of docs/label.md.

    python benchmarks/label_table.py speed  --davis DAVIS [--sequences dog camel] [--sizes 240 360 480]
    python benchmarks/label_table.py next   --davis DAVIS [--backbone lite0] [--backwards]
    python benchmarks/label_table.py joints --davis DAVIS --badja BADJA

`speed`: frames a second on one thread and J&F, at several short sides and stages, labelled frame: the first.
`next`: J&F with the first frame labelled, and with one more: the suggested, the middle, a random one (mean of five
draws); and what the suggestion gains over these, with a bootstrap interval over the sequences. `--backwards` plays them
from their end, on which the rule was not chosen.
`joints`: PCK of BADJA's joints (within 0.2 times the root of the animal's mask area), from the first annotated frame.

Backbones: raw-pixels, any name or path, or `lite0` with `--lite0 PTH` (supervised on ImageNet; see davis_table.py).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from davis_table import lite
from torch import Tensor

from videomac.data.frame_folder import FrameFolder
from videomac.evaluate.images import read_ids
from videomac.evaluate.metrics import jaccard_and_boundary
from videomac.evaluate.protocols import PropagationSettings
from videomac.labeling.channels import Channels, Geometry
from videomac.labeling.command import RADIUS, VISIBLE
from videomac.labeling.confidence import certainty, doubt_of, label_next, presence, share_of
from videomac.labeling.extractor import load_extractor
from videomac.labeling.labels import Labels, Point
from videomac.labeling.passes import MapStore, Propagator, merged

SIZE_OF_ORIGINALS = (1080, 1920)


class Kept(MapStore):
    """Maps in memory."""

    def __init__(self) -> None:
        self.maps: dict[int, Tensor] = {}

    def save(self, frame: int, maps: Tensor) -> None:
        """Keep a map."""
        self.maps[frame] = maps

    def find(self, frame: int) -> Tensor | None:
        """A map if there is one."""
        return self.maps.get(frame)


@dataclass
class Remembering(Propagator):
    """Computes the features of a frame once, for many passes."""

    def _features(self, order: Sequence[int]) -> Iterator[Tensor]:
        memory = self.__dict__.setdefault("memory", {})
        for frame in order:
            if frame not in memory:
                (memory[frame],) = super()._features([frame])
            yield memory[frame]


def propagator(arguments: argparse.Namespace, video: Any, labels: Labels, side: int, stage: int) -> Remembering:
    given = lite(arguments.lite0) if arguments.backbone == "lite0" else arguments.backbone
    device = torch.device("cpu")
    extractor, _, _ = load_extractor(given, stage, arguments.stride, network="online", seed=0, device=device)
    frame = tuple(video.read([0]).shape[-2:])
    geometry = Geometry.fitted((frame[0], frame[1]), side, extractor.stride)
    channels = Channels(labels.ids, labels.point_names, geometry)
    radius = max(1, round(RADIUS * min(geometry.grid)))
    settings = PropagationSettings(context_frames=7, topk=5, radius=radius, temperature=0.1)
    return Remembering(video, labels, channels, extractor, settings, device)


def label(job: Propagator, length: int) -> dict[int, Tensor]:
    """The maps of every frame."""
    labelled = job.labels.frames
    back, forth = Kept(), Kept()
    if labelled[-1] > 0:
        list(job.run(list(range(labelled[-1], -1, -1)), back, set(), []))
    list(job.run(list(range(labelled[0], length)), forth, set(), []))
    return {
        frame: merged(job.channels, job.labels, frame, forth.find(frame), back.find(frame))[0]
        for frame in range(length)
    }


def sequence(arguments: argparse.Namespace, name: str) -> tuple[Any, list[np.ndarray]]:
    root = arguments.davis
    video = FrameFolder(root / "JPEGImages" / "480p" / name)
    masks = [(read_ids(path) > 0).astype(np.uint8) for path in sorted((root / "Annotations" / "480p" / name).iterdir())]
    return video, masks


class Backwards:
    """A video from its end."""

    def __init__(self, video: Any) -> None:
        self.video, self.name, self.fps = video, video.name, video.fps

    def __len__(self) -> int:
        return len(self.video)

    def read(self, indices: Sequence[int]) -> Tensor:
        """Frames."""
        return self.video.read([len(self) - 1 - index for index in indices])


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % of the means of resampled sequences."""
    values = np.array(differences)
    means = values[np.random.default_rng(0).integers(0, len(values), (10_000, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def score(job: Propagator, maps: dict[int, Tensor], truth: list[np.ndarray]) -> float:
    """J&F of all frames but the first; labelled ones are right."""
    found = []
    for frame in range(1, len(truth)):
        mask = job.labels.masks[frame] if frame in job.labels.masks else job.channels.mask(maps[frame])
        j, f = jaccard_and_boundary(mask, truth[frame], 1)
        found.append((j[0] + f[0]) / 2)
    return 100 * float(np.mean(found))


def names(arguments: argparse.Namespace) -> list[str]:
    return arguments.sequences or sorted(path.name for path in (arguments.davis / "JPEGImages" / "480p").iterdir())


def speed(arguments: argparse.Namespace) -> None:
    print(
        "| short side | stage | frames/s (CPU time) | features ms | search ms | J&F: "
        + ", ".join(names(arguments))
        + " |"
    )
    for side in arguments.sizes:
        for stage in arguments.stages:
            scores, spent, count, features = [], 0.0, 0, 0.0
            for name in names(arguments):
                video, truth = sequence(arguments, name)
                job = propagator(arguments, video, Labels(masks={0: truth[0]}), side, stage)
                begun = time.process_time()
                list(job._features(list(range(len(truth)))))  # decoding, resizing, backbone
                features += time.process_time() - begun
                maps = label(job, len(truth))
                spent += time.process_time() - begun
                count += len(truth)
                scores.append(score(job, maps, truth))
            values = ", ".join(f"{value:.1f}" for value in scores)
            cells = f"{count / spent:.1f} | {1000 * features / count:.0f} | {1000 * (spent - features) / count:.0f}"
            print(f"| {side} | {stage} | {cells} | {values}; mean {np.mean(scores):.1f} |", flush=True)


def next_(arguments: argparse.Namespace) -> None:
    print("| sequence | frame 0 | + suggested | + middle | + random (mean of 5) | suggested frame |")
    rows = []
    for name in names(arguments):
        video, truth = sequence(arguments, name)
        if arguments.backwards:
            video, truth = Backwards(video), truth[::-1]
        job = propagator(arguments, video, Labels(masks={0: truth[0]}), arguments.sizes[0], arguments.stages[0])
        length = len(truth)
        maps = label(job, length)
        sure = [certainty(job.channels, maps[frame]) for frame in range(length)]
        doubt = doubt_of(sure, [frame == 0 for frame in range(length)])
        share = share_of(
            [presence(job.channels, maps[frame]) for frame in range(length)], [f == 0 for f in range(length)]
        )
        suggested = label_next(doubt, share, [0], 1)[0]
        rng = np.random.default_rng(0)

        def with_frame(frame: int, job: Remembering = job, truth: list[np.ndarray] = truth) -> float:
            job.labels = Labels(masks={0: truth[0], frame: truth[frame]})
            return score(job, label(job, len(truth)), truth)

        first = score(job, maps, truth)
        tried = [with_frame(int(frame)) for frame in rng.choice(np.arange(1, length), 5, replace=False)]
        row = [first, with_frame(suggested), with_frame(length // 2), float(np.mean(tried))]
        rows.append(row)
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} | {suggested} of {length} |", flush=True)
    print(f"| mean | {' | '.join(f'{value:.1f}' for value in np.mean(rows, axis=0))} | |")
    for column, other in ((2, "the middle one"), (3, "a random one")):
        print(f"suggested - {other}: {interval([row[1] - row[column] for row in rows])}")


def badja(arguments: argparse.Namespace, name: str, size: tuple[int, int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By frame: joints (x, y) in pixels of the video, and whether each is visible."""
    scale = np.array([size[1] / SIZE_OF_ORIGINALS[1], size[0] / SIZE_OF_ORIGINALS[0]])
    found = {}
    for entry in json.loads((arguments.badja / f"{name}.json").read_text()):
        joints = np.array(entry["joints"], dtype=float)[:, ::-1]
        found[int(Path(entry["image_path"]).stem)] = ((joints + 0.5) * scale - 0.5, np.array(entry["visibility"]))
    return found


def joints(arguments: argparse.Namespace) -> None:
    print("| sequence | PCK@0.2 | copying the first frame | median error, pixels | visible said right |")
    for name in arguments.sequences or ["camel", "dog"]:
        video, masks = sequence(arguments, name)
        truth = badja(arguments, name, masks[0].shape)
        start = min(truth)
        at, seen = truth[start]
        points = {str(k): Point(float(x), float(y)) for k, (x, y) in enumerate(at) if seen[k]}
        job = propagator(arguments, video, Labels(points={start: points}), arguments.sizes[0], arguments.stages[0])
        maps = label(job, len(masks))
        right, copied, errors, said = [], [], [], []
        for frame, (xy, visible) in truth.items():
            if frame == start:
                continue
            reach = 0.2 * np.sqrt(masks[frame].sum())
            for k in map(int, points):
                x, y, share = job.channels.point(maps[frame], str(k))
                said.append((share >= VISIBLE) == visible[k])
                if visible[k]:
                    errors.append(np.hypot(*(np.array([x, y]) - xy[k])))
                    right.append(errors[-1] <= reach)
                    copied.append(np.hypot(*(at[k] - xy[k])) <= reach)
        values = f"{100 * np.mean(right):.1f} | {100 * np.mean(copied):.1f} | {np.median(errors):.1f}"
        print(f"| {name} | {values} | {100 * np.mean(said):.0f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("speed", "next", "joints"))
    parser.add_argument("--davis", type=Path, required=True)
    parser.add_argument("--badja", type=Path)
    parser.add_argument("--backbone", default="convnextv2_atto")
    parser.add_argument("--lite0", type=Path, help="efficientnet-lite0-*.pth")
    parser.add_argument("--sequences", nargs="*")
    parser.add_argument("--sizes", type=int, nargs="+", default=[240])
    parser.add_argument("--stages", type=int, nargs="+", default=[2])
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--backwards", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"speed": speed, "next": next_, "joints": joints}[arguments.table](arguments)


if __name__ == "__main__":
    main()
