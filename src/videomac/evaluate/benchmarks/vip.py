"""VIP: propagation of body parts between the annotated frames, mean IoU over all pixels of all videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from videomac.errors import UserError
from videomac.evaluate.config import EvalVipConfig, ScoreVipConfig
from videomac.evaluate.harness import RUN_FILES, Evaluation, ahead, progress, select
from videomac.evaluate.images import FRAME_SUFFIXES, Ids, check_frames, numbered_files, picture_size, read_ids
from videomac.evaluate.masks import predict
from videomac.evaluate.metrics import VIP_CLASSES, class_iou, confusion_matrix, mean_iou
from videomac.utils.reading import read_text
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, write_metrics, write_rows

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class VipVideo:
    """The annotated frames of one video.

    Attributes:
        name: of the video.
        masks: class ids of each annotated frame, in order.
    """

    name: str
    masks: list[Path]


def find(data: Path, split: str, wanted: list[str] | None) -> list[VipVideo]:
    """The annotated videos of a data set.

    Raises:
        UserError: not the layout, no such split or video, or a first mask without any part.
    """
    root = data / "Annotations" / "Category_ids"
    if not root.is_dir():
        root = data / "Annotations"
    if not root.is_dir():
        found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "no such folder"
        raise UserError(
            f"{data} is not in VIP layout: expected {data / 'Annotations' / 'Category_ids'}, found {found or 'nothing'}"
        )
    names, where = _split(data, split, root)
    videos = []
    for name in select(names, wanted, where):
        if not (root / name).is_dir():
            raise UserError(f"video {name} of {where} has no folder {root / name}: check the data set and the split")
        masks = numbered_files(root / name, (".png",))
        if not masks:
            raise UserError(f"{root / name} holds no PNG masks: video {name} cannot be scored")
        videos.append(VipVideo(name, masks))
    return videos


def _split(data: Path, split: str, root: Path) -> tuple[list[str], Path]:
    """Names of the videos of a split, and where they are from."""
    lists = data / "lists"
    if split == "auto":
        split = "val_videos" if (lists / "val_videos.txt").is_file() else "all"
    if split == "all":
        return sorted(path.name for path in root.iterdir() if path.is_dir()), root
    path = lists / f"{split.removesuffix('.txt')}.txt"
    if not path.is_file():
        found = ", ".join(sorted(p.stem for p in lists.glob("*.txt"))) or "none"
        raise UserError(f"there is no split {path}: --split may be all or one of those found ({found})")
    return read_text(path).split(), path


def frames_of(data: Path, video: VipVideo) -> list[Path]:
    """The annotated frames of a video.

    Raises:
        UserError: a frame is missing, or frames differ in size.
    """
    folder = data / "Images" / video.name
    if not folder.is_dir():
        raise UserError(f"video {video.name} has masks but no frames: expected {folder}")
    frames = {path.stem: path for path in numbered_files(folder, FRAME_SUFFIXES)}
    if missing := [path.stem for path in video.masks if path.stem not in frames]:
        raise UserError(
            f"frame {missing[0]} of video {video.name} is missing from {folder}, though it has a mask "
            f"({len(missing)} missing): copy the data set again"
        )
    chosen = [frames[path.stem] for path in video.masks]
    size = check_frames(video.name, chosen)
    if (found := picture_size(video.masks[0])) != size:
        raise UserError(
            f"{video.masks[0]} is {found[1]}x{found[0]} pixels but its frame is {size[1]}x{size[0]}: masks and frames "
            "must have the same size"
        )
    return chosen


@holds_out_dir
def run(config: EvalVipConfig) -> dict[str, float]:
    """Propagate, write predictions and pictures, score.

    Returns:
        `mIoU`, a fraction of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    videos = find(config.data, config.split, config.sequences)
    frames = {video.name: frames_of(config.data, video) for video in videos}
    first = {video.name: _first_mask(video) for video in videos}
    predict([Evaluation.begin(config)], frames, first)
    return report(score(videos, config.out / "predictions"), config.out)


def _first_mask(video: VipVideo) -> Ids:
    ids = read_ids(video.masks[0])
    ids[ids >= VIP_CLASSES] = 0  # no class: not scored, not propagated
    if not ids.any():
        raise UserError(f"{video.masks[0]} is an empty mask: the first frame of a video must show the parts")
    return ids


def score_predictions(config: ScoreVipConfig) -> dict[str, float]:
    """Score what any tool predicted.

    Raises:
        UserError: a prediction is missing, of another size, not an index mask, or has an unknown class.
    """
    videos = find(config.data, config.split, config.sequences)
    if not config.predictions.is_dir():
        raise UserError(f"there is no folder of predictions {config.predictions}: check the path")
    if config.out is not None:
        prepare_out_dir(config.out, RUN_FILES, overwrite=config.overwrite)
    return report(score(videos, config.predictions), config.out)


def score(videos: list[VipVideo], predictions: Path) -> dict[str, list[Matrix]]:
    """Confusion matrices of every frame of every video, the first frame included.

    Raises:
        UserError: as in `score_predictions`.
    """
    result: dict[str, list[Matrix]] = {}
    with progress(sum(len(video.masks) for video in videos), "scoring") as bar:
        for video in videos:
            folder = predictions / video.name
            if not folder.is_dir():
                raise UserError(f"there are no predictions for video {video.name}: expected a folder {folder}")
            result[video.name] = []
            for matrix in ahead(partial(_score_frame, folder), video.masks):
                result[video.name].append(matrix)
                bar.update()
    return result


def _score_frame(folder: Path, mask: Path) -> Matrix:
    path = folder / mask.name
    if not path.is_file():
        raise UserError(f"prediction {path} is missing: every annotated frame is scored, the first included")
    truth, prediction = read_ids(mask), read_ids(path)
    if prediction.shape != truth.shape:
        raise UserError(
            f"{path} is {prediction.shape[1]}x{prediction.shape[0]} pixels but the truth is "
            f"{truth.shape[1]}x{truth.shape[0]}: resize predictions to the annotations (nearest)"
        )
    if (largest := int(prediction.max())) >= VIP_CLASSES:
        raise UserError(f"{path} has class {largest}: VIP's classes are 0 (background) to {VIP_CLASSES - 1}")
    return confusion_matrix(prediction, truth)


def report(matrices: dict[str, list[Matrix]], out: Path | None) -> dict[str, float]:
    """Pool all pixels, print the numbers, write `metrics.json`, `metrics.csv` (videos) and `classes.csv`."""
    total = _sum([matrix for frames in matrices.values() for matrix in frames])
    later = _sum([matrix for frames in matrices.values() for matrix in frames[1:]])
    numbers = {"mIoU": mean_iou(total)}
    rows = [
        {"Sequence": name, "frames": len(frames), "mIoU": mean_iou(_sum(frames))} for name, frames in matrices.items()
    ]
    width = max(len(name) for name in matrices)
    for name, frames in matrices.items():
        print(f"{name:{width}}  {100 * mean_iou(_sum(frames)):5.1f}")
    print(f"mIoU {100 * numbers['mIoU']:.1f}  (without the first frames {100 * mean_iou(later):.1f})", flush=True)
    if out is not None:
        write_rows(out / "metrics.csv", rows)
        classes = [{"class": label, "IoU": value} for label, value in enumerate(class_iou(total).tolist())]
        write_rows(out / "classes.csv", classes)
        write_metrics(out, numbers)
    return numbers


def _sum(matrices: list[Matrix]) -> Matrix:
    return np.sum(matrices, axis=0) if matrices else np.zeros((VIP_CLASSES, VIP_CLASSES), dtype=np.int64)
