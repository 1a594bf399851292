"""DAVIS: any folder in its layout, propagation of the first mask, J and F as the official evaluation counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from videomac.errors import UserError
from videomac.evaluate.config import EvalDavisConfig, ScoreDavisConfig
from videomac.evaluate.harness import RUN_FILES, Evaluation, ahead, progress, select, warn
from videomac.evaluate.images import FRAME_SUFFIXES, Ids, check_frames, numbered_files, read_ids
from videomac.evaluate.masks import predict
from videomac.evaluate.metrics import Floats, Statistics, jaccard_and_boundary, statistics
from videomac.utils.reading import read_text
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, write_metrics, write_rows

KEYS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SPLITS = ("2017/val", "2016/val")


@dataclass(frozen=True)
class DavisSequence:
    """Frames and masks of one video.

    Attributes:
        name: of the video.
        masks: the annotations, in order.
        binary: whether 255 means object 1 (DAVIS-2016) rather than no object.
        num_objects: the largest id of the first mask.
    """

    name: str
    masks: list[Path]
    binary: bool
    num_objects: int

    def read(self, path: Path) -> Ids:
        """The ids of an annotation: 255 is the object if all is 0 or 255, else background."""
        ids = read_ids(path)
        ids[ids == 255] = 1 if self.binary else 0
        return ids


def find(data: Path, split: str, resolution: str, wanted: list[str] | None) -> list[DavisSequence]:
    """The annotated sequences of a data set.

    Raises:
        UserError: not the layout, no such split or sequence, or a first mask without any object.
    """
    root = folder_of(data, "Annotations", resolution)
    names, where = _split(data, split, root)
    result = []
    for name in select(names, wanted, where):
        if not (root / name).is_dir():
            raise UserError(f"sequence {name} of {where} has no folder {root / name}: check the data set and the split")
        masks = numbered_files(root / name, (".png",))
        if not masks:
            raise UserError(f"{root / name} holds no PNG masks: sequence {name} cannot be scored")
        first = read_ids(masks[0])
        found = set(np.unique(first).tolist())
        binary = 255 in found and found <= {0, 255}
        objects = 1 if binary else max(found - {255}, default=0)
        if objects == 0:
            raise UserError(f"{masks[0]} is an empty mask: the first frame of a sequence must show every object")
        if absent := set(range(1, objects)) - found - ({1} if binary else set()):
            warn(
                f"object {min(absent)} of sequence {name} is absent from the first mask, so it cannot be propagated; "
                "it counts all the same, as in the official evaluation"
            )
        result.append(DavisSequence(name, masks, binary, objects))
    return result


def folder_of(data: Path, kind: str, resolution: str) -> Path:
    """The folder of the frames or masks: `data/kind/resolution`, or `data/kind` if that holds the sequences.

    Raises:
        UserError: there is none.
    """
    root = data / kind / resolution
    if root.is_dir():
        return root
    if (data / kind).is_dir() and any(path.is_dir() and any(path.glob("*.*")) for path in (data / kind).iterdir()):
        return data / kind
    found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "no such folder"
    raise UserError(f"{data} is not in DAVIS layout: expected {root}, found {found or 'nothing'}")


def _split(data: Path, split: str, root: Path) -> tuple[list[str], Path]:
    """Names of the sequences of a split, and where they are from."""
    lists = data / "ImageSets"
    if split == "auto":
        split = next((name for name in SPLITS if (lists / f"{name}.txt").is_file()), "all")
    if split == "all":
        return sorted(path.name for path in root.iterdir() if path.is_dir()), root
    path = lists / f"{split}.txt"
    if not path.is_file():
        found = ", ".join(sorted(str(p.relative_to(lists).with_suffix("")) for p in lists.rglob("*.txt"))) or "none"
        raise UserError(f"there is no split {path}: --split may be all or one of those found ({found})")
    # DAVIS-2016 also has lists of frames: "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png".
    words = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    names = [Path(word).parent.name if word.lower().endswith(FRAME_SUFFIXES) else word for word in words]
    return list(dict.fromkeys(names)), path


def frames_of(data: Path, resolution: str, sequence: DavisSequence) -> list[Path]:
    """The frames of a sequence.

    Raises:
        UserError: the folder, or the frame of a mask, is missing; or frames differ in size.
    """
    folder = folder_of(data, "JPEGImages", resolution) / sequence.name
    if not folder.is_dir():
        raise UserError(f"sequence {sequence.name} has masks but no frames: expected {folder}")
    frames = numbered_files(folder, FRAME_SUFFIXES)
    stems = {path.stem for path in frames}
    if missing := [path.stem for path in sequence.masks if path.stem not in stems]:
        raise UserError(
            f"frame {missing[0]} of sequence {sequence.name} is missing from {folder}, though it has a mask "
            f"({len(missing)} missing): copy the data set again"
        )
    size = check_frames(sequence.name, frames)
    first = sequence.masks[0]
    if first.stem != frames[0].stem:
        raise UserError(f"the first frame of sequence {sequence.name}, {frames[0].name}, has no mask in {first.parent}")
    if (found := sequence.read(first).shape) != size:
        raise UserError(
            f"{first} is {found[1]}x{found[0]} pixels but its frame is {size[1]}x{size[0]}: masks and frames must "
            "have the same size"
        )
    return frames


@holds_out_dir
def run(config: EvalDavisConfig) -> dict[str, float]:
    """Propagate, write predictions and pictures, score.

    Returns:
        The global numbers, fractions of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    (numbers,) = run_stages([config])
    return numbers


def run_stages(configs: Sequence[EvalDavisConfig]) -> list[dict[str, float]]:
    """Judge several stages of one network at once, each as `run` does, in an out folder of its own.

    Args:
        configs: alike but for the stage, which rises, and the out folder, which the caller holds.

    Returns:
        The global numbers of each, fractions of 1.

    Raises:
        UserError: as in `run`.
    """
    config = configs[0]
    sequences = find(config.data, config.split, config.resolution, config.sequences)
    frames = {sequence.name: frames_of(config.data, config.resolution, sequence) for sequence in sequences}
    evaluations = [Evaluation.begin(config) for config in configs]
    predict(evaluations, frames, first={sequence.name: sequence.read(sequence.masks[0]) for sequence in sequences})
    return [report(score(sequences, config.out / "predictions"), config.out) for config in configs]


def score_predictions(config: ScoreDavisConfig) -> dict[str, float]:
    """Score what any tool predicted.

    Raises:
        UserError: a prediction is missing, of another size, not an index mask, or has more objects than the truth.
    """
    sequences = find(config.data, config.split, config.resolution, config.sequences)
    if not config.predictions.is_dir():
        raise UserError(f"there is no folder of predictions {config.predictions}: check the path")
    if config.out is not None:
        prepare_out_dir(config.out, RUN_FILES, overwrite=config.overwrite)
    return report(score(sequences, config.predictions), config.out)


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object of one sequence."""

    sequence: str
    number: int
    j: Statistics
    f: Statistics

    @property
    def label(self) -> str:
        """Name in the official tables."""
        return f"{self.sequence}_{self.number}"

    @property
    def numbers(self) -> dict[str, float]:
        """All six statistics."""
        values = [getattr(side, key) for side in (self.j, self.f) for key in ("mean", "recall", "decay")]
        return dict(zip(KEYS[1:], values, strict=True))


def score(sequences: list[DavisSequence], predictions: Path) -> list[ObjectScore]:
    """J and F of every object, from the predicted masks on disk.

    The first and the last frame of a sequence are not scored, and need not have been predicted.

    Raises:
        UserError: as in `score_predictions`, or a sequence has no frame to score.
    """
    result = []
    with progress(sum(len(sequence.masks) - 2 for sequence in sequences), "scoring") as bar:
        for sequence in sequences:
            scored = sequence.masks[1:-1]
            if not scored:
                raise UserError(
                    f"sequence {sequence.name} has {len(sequence.masks)} masks: all but the first and the last are "
                    "scored, so at least 3 are needed; leave it out of the split"
                )
            folder = predictions / sequence.name
            if not folder.is_dir():
                raise UserError(f"there are no predictions for sequence {sequence.name}: expected a folder {folder}")
            pairs = [(path, folder / path.name) for path in scored]
            rows = []
            for row in ahead(partial(_score_frame, sequence), pairs):
                rows.append(row)
                bar.update()
            _warn_of_late_objects(sequence, [row[2] for row in rows], scored)
            for number in range(sequence.num_objects):
                j, f = statistics([row[0][number] for row in rows]), statistics([row[1][number] for row in rows])
                result.append(ObjectScore(sequence.name, number + 1, j, f))
    return result


def _score_frame(sequence: DavisSequence, paths: tuple[Path, Path]) -> tuple[Floats, Floats, int]:
    """J and F of each object in one frame, and the largest id of the truth."""
    truth_path, path = paths
    if not path.is_file():
        raise UserError(f"prediction {path} is missing: every frame but the first and the last must be predicted")
    truth, prediction = sequence.read(truth_path), read_ids(path)
    if sequence.binary:
        prediction[prediction == 255] = 1
    if prediction.shape != truth.shape:
        raise UserError(
            f"{path} is {prediction.shape[1]}x{prediction.shape[0]} pixels but the truth is "
            f"{truth.shape[1]}x{truth.shape[0]}: resize predictions to the annotations (nearest)"
        )
    if (largest := int(prediction.max())) > sequence.num_objects:
        raise UserError(
            f"{path} has object {largest} but sequence {sequence.name} has {sequence.num_objects} object(s): ids must "
            "be those of the first mask"
        )
    j, f = jaccard_and_boundary(prediction, truth, sequence.num_objects)
    return j, f, int(truth.max())


def _warn_of_late_objects(sequence: DavisSequence, largest: list[int], scored: list[Path]) -> None:
    if late := [
        (number, path.stem) for number, path in zip(largest, scored, strict=True) if number > sequence.num_objects
    ]:
        number, stem = late[0]
        warn(
            f"object {number} of sequence {sequence.name} first appears in frame {stem}, so it cannot be propagated "
            "and is not counted, as in the official evaluation"
        )


def report(scores: list[ObjectScore], out: Path | None) -> dict[str, float]:
    """Average over objects, print the table, write `metrics.json`, `metrics.csv` and the two official CSV files."""
    means = {key: float(np.mean([score.numbers[key] for score in scores])) for key in KEYS[1:]}
    numbers = {KEYS[0]: (means["J-Mean"] + means["F-Mean"]) / 2, **means}
    width = max(len(score.label) for score in scores)
    print(f"{'':{width}}      J&F      J      F")
    for score in scores:
        both = 50 * (score.j.mean + score.f.mean)
        print(f"{score.label:{width}}   {both:6.1f} {100 * score.j.mean:6.1f} {100 * score.f.mean:6.1f}")
    print("  ".join(f"{key} {100 * value:.1f}" for key, value in numbers.items()), flush=True)
    if out is not None:
        write_rows(out / "metrics.csv", [{"Sequence": score.label, **score.numbers} for score in scores])
        short = ("J-Mean", "F-Mean")
        official = [
            {"Sequence": score.label, **{key: f"{score.numbers[key]:.3f}" for key in short}} for score in scores
        ]
        write_rows(out / "per-sequence_results-val.csv", official)
        write_rows(out / "global_results-val.csv", [{key: f"{value:.3f}" for key, value in numbers.items()}])
        write_metrics(out, numbers)
    return numbers
