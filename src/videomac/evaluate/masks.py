"""Propagation of index masks: what DAVIS and VIP have in common."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videomac.evaluate.harness import Evaluation, feature_streams, progress
from videomac.evaluate.images import Ids, picture_size, read_frame, write_ids
from videomac.evaluate.labels import grid_to_ids, masks_to_grid
from videomac.evaluate.overlays import Pictures, overlay_ids


def predict(evaluations: Sequence[Evaluation], frames: Mapping[str, list[Path]], first: Mapping[str, Ids]) -> None:
    """Propagate the first mask of every sequence; write `predictions/<sequence>/<frame>.png` and the pictures.

    Sequences whose predictions are there already are left alone: they are moved into place when they are complete.

    Args:
        evaluations: the settings and the backbone; several are of one network, from its first stage to its last.
        frames: of each sequence.
        first: mask of each sequence's first frame.
    """
    todo = {name: [each for each in evaluations if not _done(each, name)] for name in frames}
    missing = [name for name, wanted in todo.items() if wanted]
    if len(missing) < len(frames):
        print(f"{len(frames) - len(missing)} of {len(frames)} sequences are done already")
    with progress(sum(len(frames[name]) for name in missing), "propagating") as bar:
        for name in missing:
            bar.set_postfix_str(name)
            writers = [_Writer(evaluation, name, frames[name]) for evaluation in todo[name]]
            for path, *masks in zip(frames[name], *masks_of(todo[name], frames[name], first[name]), strict=True):
                for writer, ids in zip(writers, masks, strict=True):
                    writer.add(path, ids)
                bar.update()
            for writer in writers:
                writer.close()


def _done(evaluation: Evaluation, name: str) -> bool:
    return (evaluation.config.out / "predictions" / name).is_dir()


class _Writer:
    """The predictions and pictures of one sequence, moved into place when they are complete."""

    def __init__(self, evaluation: Evaluation, name: str, frames: list[Path]) -> None:
        root = evaluation.config.out / "predictions"
        self.partial, self.place = root / f".{name}.partial", root / name
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.pictures = Pictures(evaluation.config.out, name, frames) if evaluation.config.videos else None

    def add(self, path: Path, ids: Ids) -> None:
        """Write the mask of the next frame."""
        write_ids(self.partial / f"{path.stem}.png", ids)
        if self.pictures:
            self.pictures.add(overlay_ids(read_frame(path), ids))

    def close(self) -> None:
        """Say that all frames are there."""
        if self.pictures:
            self.pictures.close()
        self.partial.rename(self.place)


def masks_of(evaluations: Sequence[Evaluation], frames: list[Path], first: Ids) -> list[Iterator[Ids]]:
    """The predicted mask of each frame of one sequence, at the frame's size, of each evaluation."""
    original = picture_size(frames[0])
    size = evaluations[0].input_size(original)
    streams = feature_streams(evaluations, frames, size)
    return [
        _masks(evaluation, features, size, original, first)
        for evaluation, features in zip(evaluations, streams, strict=True)
    ]


def _masks(
    evaluation: Evaluation, features: Iterator[Tensor], size: tuple[int, int], original: tuple[int, int], first: Ids
) -> Iterator[Ids]:
    protocol = evaluation.protocol
    ids = np.unique(np.append(first, 0))  # the background first, even if frame 0 shows none
    channels = torch.from_numpy(np.searchsorted(ids, first).astype(np.uint8)).to(evaluation.device)
    grid = evaluation.extractor.grid(*size)
    labels = masks_to_grid(channels, len(ids), size, grid, protocol.label_resize)
    for time, maps in enumerate(evaluation.propagate_features(features, labels)):
        if time == 0 and protocol.first_frame == "truth":
            yield first
            continue
        decided = grid_to_ids(maps, size, original, class_normalization=protocol.class_normalization)
        yield ids.astype(np.uint8)[decided.cpu().numpy()]
