"""Labels travel through the video, forwards and backwards from every labelled frame, and what they have done is kept.

A pass goes from the first labelled frame in its direction to the last frame. At every labelled frame it takes over what
is labelled there, which counts from there on; labels of a frame that says nothing about a point leave that point as it
was propagated. Between two labelled frames both passes have an opinion, and the nearer labelled frame counts more.

Only the latest maps are kept in memory. Every map is also written to a folder, where an interrupted pass finds its
context again: a resumed pass sees exactly what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from videomac.data.transforms import resize
from videomac.data.video import Video, VideoError
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.propagation import propagate_stream
from videomac.evaluate.protocols import PropagationSettings
from videomac.labeling.channels import Channels
from videomac.labeling.frames import read_frames
from videomac.labeling.labels import Labels


class MapStore:
    """Label maps of frames in a folder, each written in one piece."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if need be."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, frame: int) -> Path:
        """The file of a frame."""
        return self.folder / f"{frame:08d}.npz"

    def save(self, frame: int, maps: Tensor) -> None:
        """Keep a map; it is nearly empty, so that compressing it pays."""
        partial = self.folder / "partial.npz"
        np.savez_compressed(partial, maps=maps.cpu().numpy())
        partial.replace(self.path(frame))

    def load(self, frame: int) -> Tensor:
        """A map that was kept."""
        with np.load(self.path(frame)) as file:
            return torch.from_numpy(file["maps"])

    def find(self, frame: int) -> Tensor | None:
        """A map if it was kept."""
        return self.load(frame) if self.path(frame).is_file() else None

    def keep_only(self, frames: set[int]) -> None:
        """Delete all other maps."""
        for path in self.folder.glob("0*.npz"):
            if int(path.stem) not in frames:
                path.unlink()


@dataclass
class Propagator:
    """One video, its labels and how they are propagated.

    Attributes:
        video: to label.
        labels: what is labelled.
        channels: how labels are drawn.
        extractor: of features.
        settings: of the search.
        device: where it is computed.
    """

    video: Video
    labels: Labels
    channels: Channels
    extractor: FeatureExtractor
    settings: PropagationSettings
    device: torch.device

    def run(
        self, frames: Sequence[int], store: MapStore, done: set[int], problems: list[str], *, prune: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """One pass: yields (frame, maps) of all frames that are not done.

        Args:
            frames: numbers in the direction of the pass, beginning with a labelled one.
            store: where maps are kept.
            done: frames not to yield; their maps are in the store as far as they are needed.
            problems: takes one sentence for every frame at which the video cannot be read on.
            prune: delete maps when no frame to come needs them.
        """
        done = set(done)
        labelled = [index for index, frame in enumerate(frames) if frame in self.labels.frames]
        for first, last in pairwise([*labelled, len(frames)]):
            # The leg ends with the next labelled frame, which begins the next one.
            leg = frames[first : last + 1]
            finished = 0
            while finished < len(leg) and leg[finished] in done:
                finished += 1
            if finished == len(leg):
                continue
            try:
                for frame, maps in self._leg(leg, finished, store, prune):
                    done.add(frame)
                    yield frame, maps
            except VideoError as error:
                problems.append(str(error))

    def _leg(self, leg: Sequence[int], finished: int, store: MapStore, prune: bool) -> Iterator[tuple[int, Tensor]]:
        """The frames from one labelled frame to the next, of which the first ones may be finished."""
        anchor = store.find(leg[0])
        anchor = self.channels.draw(self.labels, leg[0], self.channels.blank() if anchor is None else anchor)
        context = self.settings.context_frames
        # Frames between the labelled one and the context have been forgotten: the context decides alone.
        begin = max(1, finished - context)
        known = [store.load(frame) for frame in leg[begin:finished]]
        order = [leg[0], *leg[begin:]]
        also = [
            (features, self.channels.draw(self.labels, frame, self.channels.blank()))
            for frame in self._neighbours(leg[0])
            for features in self._features([frame])
        ]
        stream = propagate_stream(self._features(order), anchor, self.settings, known=known, also=also)
        skipped = set(leg[:finished])
        for at, (frame, maps) in enumerate(zip(order, stream, strict=True), start=begin - 1):
            maps = maps.cpu()
            if frame != leg[0] and frame in self.labels.frames:
                maps = self.channels.draw(self.labels, frame, maps)
            if frame in skipped:
                continue
            store.save(frame, maps)
            yield frame, maps
            if prune:
                # `at` is the frame's place in the leg, but for the first, whose place is 0.
                store.keep_only({leg[0], *leg[max(0, at - context) : at + 1]})

    def _neighbours(self, frame: int) -> list[int]:
        """The nearest labelled frames on both sides, as far as they say something about every label.

        They are searched too: were an object hidden in the frame from which it is propagated, it would be lost.
        """
        groups = [set(group_frames(self.labels, group)) for group in self.channels.groups]
        whole = sorted(set.intersection(*groups) - {frame})
        before, after = [f for f in whole if f < frame], [f for f in whole if f > frame]
        return before[-1:] + after[:1]

    def _features(self, order: Sequence[int]) -> Iterator[Tensor]:
        """Features of frames, one by one: what a frame's are must not depend on its neighbours in a batch."""
        geometry = self.channels.geometry
        for _, frame in read_frames(self.video, order, geometry.frame):
            picture = resize(frame[None], geometry.size).to(self.device).float() / 255
            with torch.inference_mode():
                features: Tensor = self.extractor(picture)[0]
            yield features


def merged(
    channels: Channels, labels: Labels, frame: int, forward: Tensor | None, backward: Tensor | None
) -> tuple[Tensor, dict[str, bool]]:
    """The maps of a frame from both passes, each group of channels weighted by nearness and by certainty.

    A pass counts the more, the nearer the labelled frame is that it comes from, and the surer its votes are: one that
    has lost an object must not outvote the other.

    Returns:
        The maps, and for each group whether both passes had their say.
    """
    result, both = channels.blank(), {}
    for group, part in channels.groups.items():
        known = group_frames(labels, group)
        before = max((f for f in known if f <= frame), default=None) if forward is not None else None
        after = min((f for f in known if f >= frame), default=None) if backward is not None else None
        both[group] = before is not None and after is not None and before != after
        if before is not None and after is not None and before != after:
            ahead = (after - frame) * _sureness(channels, labels, group, _of(forward, part), before)
            behind = (frame - before) * _sureness(channels, labels, group, _of(backward, part), after)
            share = ahead / (ahead + behind)
            result[part] = share * _of(forward, part) + (1 - share) * _of(backward, part)
        elif before is not None:
            result[part] = _of(forward, part)
        elif after is not None:
            result[part] = _of(backward, part)
    return result, both


def _sureness(channels: Channels, labels: Labels, group: str, maps: Tensor, labelled: int) -> float:
    """How sure the votes of a pass are, in (0, 1]: squares of mean certainties, which keep the losing pass small.

    What is not in the labelled frame that the pass comes from has been said to be absent, which is sure.
    """
    if group:
        return 1.0 if not labels.points[labelled][group].visible else max(float(maps[0].max()), 0.01) ** 2
    there = [index for index, number in enumerate(channels.ids, 1) if (labels.masks[labelled] == number).any()]
    if not there:
        return 1.0
    sure = [float(map_.square().sum() / map_.sum().clamp(min=1e-6)) for map_ in maps[there]]
    return max(sum(sure) / len(sure), 0.01) ** 2


def _of(maps: Tensor | None, part: slice) -> Tensor:
    assert maps is not None
    return maps[part]


def group_frames(labels: Labels, group: str) -> list[int]:
    """The frames in which a group of channels is labelled; "" is the masks."""
    if not group:
        return sorted(labels.masks)
    return sorted(frame for frame, points in labels.points.items() if group in points)
