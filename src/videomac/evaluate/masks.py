"""Propagation of index masks: what DAVIS and VIP have in common."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from videomac.evaluate.harness import Evaluation, progress
from videomac.evaluate.images import Ids, picture_size, read_frame, write_ids
from videomac.evaluate.labels import grid_to_ids, masks_to_grid
from videomac.evaluate.overlays import Pictures, overlay_ids


def predict(evaluation: Evaluation, frames: Mapping[str, list[Path]], first: Mapping[str, Ids]) -> None:
    """Propagate the first mask of every sequence; write `predictions/<sequence>/<frame>.png` and the pictures.

    Sequences whose predictions are there already are left alone: they are moved into place when they are complete.

    Args:
        evaluation: the settings and the backbone.
        frames: of each sequence.
        first: mask of each sequence's first frame.
    """
    root = evaluation.config.out / "predictions"
    todo = {name: paths for name, paths in frames.items() if not (root / name).is_dir()}
    if len(todo) < len(frames):
        print(f"{len(frames) - len(todo)} of {len(frames)} sequences are done already")
    with progress(sum(map(len, todo.values())), "propagating") as bar:
        for name, paths in todo.items():
            bar.set_postfix_str(name)
            partial = root / f".{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            pictures = Pictures(evaluation.config.out, name, paths) if evaluation.config.videos else None
            for path, ids in zip(paths, masks_of(evaluation, paths, first[name]), strict=True):
                write_ids(partial / f"{path.stem}.png", ids)
                if pictures:
                    pictures.add(overlay_ids(read_frame(path), ids))
                bar.update()
            if pictures:
                pictures.close()
            partial.rename(root / name)


def masks_of(evaluation: Evaluation, frames: list[Path], first: Ids) -> Iterator[Ids]:
    """Yield the predicted mask of each frame of one sequence, at the frame's size."""
    protocol = evaluation.protocol
    original = picture_size(frames[0])
    size = evaluation.input_size(original)
    ids = np.unique(np.append(first, 0))  # the background first, even if frame 0 shows none
    channels = torch.from_numpy(np.searchsorted(ids, first).astype(np.uint8)).to(evaluation.device)
    grid = evaluation.extractor.grid(*size)
    labels = masks_to_grid(channels, len(ids), size, grid, protocol.label_resize)
    for time, maps in enumerate(evaluation.propagate(frames, size, labels)):
        if time == 0 and protocol.first_frame == "truth":
            yield first
            continue
        decided = grid_to_ids(maps, size, original, class_normalization=protocol.class_normalization)
        yield ids.astype(np.uint8)[decided.cpu().numpy()]
