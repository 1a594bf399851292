"""JHMDB: propagation of 15 joints, and the percentage of correct keypoints."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.io

from videomac.data.video import reason
from videomac.errors import UserError
from videomac.evaluate.config import EvalJhmdbConfig, ScoreJhmdbConfig
from videomac.evaluate.harness import RUN_FILES, Evaluation, progress, select
from videomac.evaluate.images import FRAME_SUFFIXES, check_frames, numbered_files, picture_size, read_frame
from videomac.evaluate.labels import NUM_JOINTS, grid_to_joints, joints_to_grid
from videomac.evaluate.metrics import PCK_THRESHOLDS, keypoint_distances, pck
from videomac.evaluate.overlays import Pictures, overlay_joints
from videomac.utils.reading import read_text
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, write_metrics, write_rows

Joints = npt.NDArray[np.float64]  # [T, 15, 2] pixels (x, y), 0-based; negative = not given
MAT = "joint_positions.mat"


@dataclass(frozen=True)
class JhmdbVideo:
    """Frames and joints of one video.

    Attributes:
        name: class/video.
        joints: of each frame.
    """

    name: str
    joints: Joints


def read_joints(path: Path) -> Joints:
    """The joints of a `joint_positions.mat`.

    Raises:
        UserError: no such file, or one without `pos_img` of 2 x 15 x frames.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: check the data set and the split")
    try:
        content = scipy.io.loadmat(path)
    except Exception as error:  # a damaged file makes SciPy raise whatever it trips over
        raise UserError(f"{path} is not a readable .mat file ({reason(error)}): copy it again") from None
    if "pos_img" not in content:
        found = ", ".join(key for key in content if key[:2] != "__") or "nothing"
        raise UserError(f"{path} has no pos_img, the joints in pixels (found {found}): it is not JHMDB's own file")
    joints = np.asarray(content["pos_img"])
    if joints.dtype.kind not in "fiu":
        raise UserError(f"pos_img of {path} holds no numbers: it is not JHMDB's own file")
    joints = joints[..., None] if joints.ndim == 2 else joints  # MATLAB drops the last axis of a single frame
    if joints.ndim != 3 or joints.shape[:2] != (2, NUM_JOINTS) or not joints.size:
        raise UserError(f"pos_img of {path} is {joints.shape}, but must be (2, {NUM_JOINTS}, frames)")
    joints = joints.astype(np.float64)
    if not np.isfinite(joints).all():
        raise UserError(f"pos_img of {path} holds NaN or infinity: a joint that is not given is 0, or negative")
    positions: Joints = joints.transpose(2, 1, 0) - 1  # MATLAB counts pixels from 1
    return positions


def write_joints(path: Path, joints: Joints) -> None:
    """Write joints in the data set's own form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"pos_img": (joints + 1).transpose(2, 1, 0)})


def find(data: Path, split: str, wanted: list[str] | None) -> list[JhmdbVideo]:
    """The annotated videos of a data set.

    Raises:
        UserError: not the layout, no such split or video, or an unreadable .mat file.
    """
    root = data / "joint_positions"
    if not root.is_dir():
        found = ", ".join(sorted(path.name for path in data.iterdir())[:6]) if data.is_dir() else "no such folder"
        raise UserError(f"{data} is not in JHMDB layout: expected {root}, found {found or 'nothing'}")
    names, where = _split(data, split, root)
    videos = []
    for name in select(names, wanted, where, parts=2):
        joints, folder = read_joints(root / name / MAT), data / "Rename_Images" / name
        # Where the numbers of pictures and of joints differ, the smaller counts.
        videos.append(
            JhmdbVideo(name, joints[: len(numbered_files(folder, FRAME_SUFFIXES))] if folder.is_dir() else joints)
        )
    return videos


def _split(data: Path, split: str, root: Path) -> tuple[list[str], Path]:
    """Names (class/video) of a test split, and where they are from."""
    lists = data / "splits"
    if split == "auto":
        split = "1" if any(lists.glob("*_test_split1.txt")) else "all"
    if split == "all":
        return sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(MAT)), root
    files = sorted(lists.glob(f"*_test_split{split}.txt"))
    if not files:
        raise UserError(f"there is no {lists}/*_test_split{split}.txt: --split may be 1, 2, 3 or all")
    names = []
    for path in files:
        group = path.name.removesuffix(f"_test_split{split}.txt")
        lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
        names += [f"{group}/{words[0].removesuffix('.avi')}" for words in lines if len(words) > 1 and words[1] == "2"]
    return names, lists


def frames_of(data: Path, video: JhmdbVideo) -> list[Path]:
    """The frames of a video, as many as there are joints for.

    Raises:
        UserError: there are no frames or just one, or they differ in size.
    """
    folder = data / "Rename_Images" / video.name
    if not folder.is_dir():
        raise UserError(f"video {video.name} has joints but no frames: expected {folder}")
    frames = numbered_files(folder, FRAME_SUFFIXES)[: len(video.joints)]
    numbers = [int(path.stem) for path in frames if path.stem.isdigit()]
    if numbers and (gaps := sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))):
        raise UserError(f"frame {gaps[0]:05d} of video {video.name} is missing from {folder}: copy the data set again")
    check_frames(video.name, frames)
    return frames


@holds_out_dir
def run(config: EvalJhmdbConfig) -> dict[str, float]:
    """Propagate, write predictions and pictures, score.

    Returns:
        `PCK@0.1` to `PCK@0.5`, fractions of 1.

    Raises:
        UserError: something is wrong with the data, the backbone or the out folder.
    """
    videos = find(config.data, config.split, config.sequences)
    frames = {video.name: frames_of(config.data, video) for video in videos}
    evaluation = Evaluation.begin(config)
    predictions = config.out / "predictions"
    todo = [video for video in videos if not (predictions / video.name).is_dir()]
    if len(todo) < len(videos):
        print(f"{len(videos) - len(todo)} of {len(videos)} videos are done already")
    with progress(sum(len(frames[video.name]) for video in todo), "propagating") as bar:
        for video in todo:
            bar.set_postfix_str(video.name)
            joints = _propagate(evaluation, frames[video.name], video.joints[0], bar)
            partial = predictions / ".partial"
            shutil.rmtree(partial, ignore_errors=True)
            write_joints(partial / MAT, joints)
            if config.videos:
                pictures = Pictures(config.out, video.name, frames[video.name])
                for path, positions in zip(frames[video.name], joints, strict=True):
                    pictures.add(overlay_joints(read_frame(path), positions))
                pictures.close()
            (predictions / video.name).parent.mkdir(parents=True, exist_ok=True)
            partial.rename(predictions / video.name)
    return report(score(videos, predictions, evaluation.protocol.score_first_frame), config.out)


def _propagate(evaluation: Evaluation, frames: list[Path], first: npt.NDArray[np.float64], bar: object) -> Joints:
    """Joints of each frame of one video."""
    protocol = evaluation.protocol
    original = picture_size(frames[0])
    size = evaluation.input_size(original)
    labels = joints_to_grid(first, original, evaluation.extractor.grid(*size), protocol.joint_drawing)
    result = []
    for maps in evaluation.propagate(frames, size, labels):
        result.append(grid_to_joints(maps, original, protocol.joint_drawing, protocol.joint_topk))
        bar.update()  # type: ignore[attr-defined]
    if protocol.first_frame == "truth":
        result[0] = first
    return np.stack(result)


def score_predictions(config: ScoreJhmdbConfig) -> dict[str, float]:
    """Score what any tool predicted.

    Raises:
        UserError: a prediction is missing, not of the data set's form, or of another length.
    """
    videos = find(config.data, config.split, config.sequences)
    if not config.predictions.is_dir():
        raise UserError(f"there is no folder of predictions {config.predictions}: check the path")
    if config.out is not None:
        prepare_out_dir(config.out, RUN_FILES, overwrite=config.overwrite)
    return report(score(videos, config.predictions, config.score_first_frame), config.out)


def score(videos: list[JhmdbVideo], predictions: Path, first_frame: bool) -> dict[str, npt.NDArray[np.float64]]:
    """Normalised distances `[frames, 15]` of each video; NaN where the prediction does not give the joint.

    Raises:
        UserError: as in `score_predictions`.
    """
    result = {}
    for video in videos:
        path = predictions / video.name / MAT
        if not path.is_file():
            raise UserError(f"prediction {path} is missing: every video of the split is scored")
        joints = read_joints(path)
        if len(joints) != len(video.joints):
            raise UserError(f"{path} has {len(joints)} frames but the truth has {len(video.joints)}: give as many")
        start = 0 if first_frame else 1
        visible = joints[start:, :, 0] >= 0
        result[video.name] = keypoint_distances(joints[start:], video.joints[start:], visible)
    return result


def report(distances: dict[str, npt.NDArray[np.float64]], out: Path | None) -> dict[str, float]:
    """Pool all frames, print the numbers, write `metrics.json` and `metrics.csv` (videos)."""
    pooled = np.concatenate(list(distances.values()))
    numbers = {f"PCK@{threshold}": pck(pooled, threshold) for threshold in PCK_THRESHOLDS}
    rows = [
        {"Sequence": name, "frames": len(values), **{f"PCK@{a}": pck(values, a) for a in PCK_THRESHOLDS}}
        for name, values in distances.items()
    ]
    print("  ".join(f"{key} {100 * value:.1f}" for key, value in numbers.items()), flush=True)
    if out is not None:
        write_rows(out / "metrics.csv", rows)
        write_metrics(out, numbers)
    return numbers
