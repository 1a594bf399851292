"""Clips that are known from their manifest."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.prepared_clips import encode, write_prepared
from videomac.data import prepared
from videomac.data.discovery import Skipped, find_videos, select_hours
from videomac.data.loader import PairSampler
from videomac.data.manifest import MANIFEST, read_manifest, write_manifest
from videomac.data.order import GroupedOrder
from videomac.data.pairs import FramePairs
from videomac.data.prepared import PreparedClip, PreparedClips, is_prepared
from videomac.data.split import split_held_out
from videomac.data.synthetic import moving_shapes
from videomac.data.transforms import PairTransform
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.models.masking import MaskSampler


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared")
    write_prepared(path)
    return path


def pairs_of(clips: PreparedClips, frame_gap: int | str = 1) -> FramePairs:
    transform = PairTransform((32, 32))
    return FramePairs(clips, frame_gap=frame_gap, transform=transform, sample_mask=MaskSampler((4, 4), 0.75, True))


def test_frames_are_those_that_a_video_file_reads(folder: Path) -> None:
    clips = PreparedClips.read(folder)
    for clip in clips:
        file = VideoFile(folder / clip.name)
        assert (len(clip), clip.fps) == (len(file), file.fps)
        for indices in ([0], [11, 12], [13, 1, 13], [len(clip) - 1], [2, 23], range(len(clip))):
            assert torch.equal(clip.read(indices), file.read(indices)), (clip, indices)
        assert clip.read([3]).is_contiguous(memory_format=torch.channels_last)
        with pytest.raises(IndexError):
            clip.read([len(clip)])


def test_a_group_in_which_nothing_is_wanted_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prepared(tmp_path, (60,))
    (clip,) = PreparedClips.read(tmp_path)
    packets = []
    enumerated = prepared._runs

    def watched(numbers, gop):
        for run in enumerated(numbers, gop):
            packets.append((run[0] // gop * gop, run[-1]))
            yield run

    monkeypatch.setattr(prepared, "_runs", watched)
    clip.read([5, 6, 13, 50])
    assert packets == [(0, 13), (48, 50)]


def test_a_clip_travels_to_a_worker_and_is_small(folder: Path) -> None:
    clips = PreparedClips.read(folder)
    again = pickle.loads(pickle.dumps(clips))
    assert [(clip.name, len(clip)) for clip in again] == [(clip.name, len(clip)) for clip in clips]
    assert torch.equal(again[1].read([4]), clips[1].read([4]))


def test_nothing_but_the_manifest_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "opened", lambda path: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(os, "stat", lambda path, **_: pytest.fail(f"{path} was looked at"))
    clips = PreparedClips.read(folder)
    training, held_out = clips.within_hours(1e-3, 0).without_held_out(1, 1)
    assert len(pairs_of(training)) and len(held_out) == 1


def test_pairs_of_one_group_are_read_with_one_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[int]] = []
    read = PreparedClip.read
    monkeypatch.setattr(PreparedClip, "read", lambda clip, indices: reads.append(list(indices)) or read(clip, indices))
    pairs = pairs_of(PreparedClips.read(folder))
    keys = [(0, 30), (2, 3), (0, 5), (2, 11), (1, 3), (0, 12)]
    alone = [pairs[key] for key in keys]
    reads.clear()
    together = pairs.__getitems__(keys)
    # Pairs 3, 5 and 11 begin in the first group of the first clip; 12 in the second.
    assert sorted(reads) == [[1, 2], [3, 4, 5, 6, 11, 12], [12, 13]]
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["pair"], other["pair"]) and torch.equal(one["mask"], other["mask"])
        assert one["skipped"] == other["skipped"] == 0


@pytest.mark.parametrize("frame_gap", [1, 5, 15, "100ms"])
def test_an_epoch_through_a_loader_is_every_pair_once(folder: Path, frame_gap: int | str) -> None:
    clips = PreparedClips.read(folder)
    pairs = pairs_of(clips, frame_gap)
    gap = 2 if isinstance(frame_gap, str) else frame_gap
    assert pairs.counts.tolist() == [30 - gap, 24 - gap, 41 - gap]
    order = GroupedOrder(pairs.counts, clips.gop, seed=0)
    sampler = PairSampler(order, global_batch_size=8)
    samples = [batch["pair"] for batch in DataLoader(pairs, batch_sampler=sampler)]
    assert len(samples) == len(order) // 8 and all(batch.shape == (8, 2, 3, 32, 32) for batch in samples)
    keys = [key for batch in sampler for key in batch]
    assert torch.equal(torch.cat(samples)[5], pairs[keys[5]]["pair"])


def test_a_clip_that_is_missing_or_replaced_is_one_sentence_and_another_pair_stands_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = write_prepared(tmp_path)
    clips = PreparedClips.read(tmp_path)
    first.unlink()
    with pytest.raises(VideoError, match=r"0000.mp4: No such file.*stands in manifest.parquet; run `videomac prepare"):
        clips[0].read([0])
    second.write_bytes(second.read_bytes() + b"x")
    with pytest.raises(VideoError, match=r"0001.mp4: has \d+ bytes, and \d+ by manifest.parquet, so it was replaced"):
        clips[1].read([0])
    pairs = pairs_of(clips)
    with caplog.at_level(logging.WARNING):
        samples = pairs.__getitems__([(0, 0), (0, 6), (0, 60)])
    assert [sample["skipped"] for sample in samples] == [1, 1, 0]
    messages = [record.getMessage() for record in caplog.records]
    assert 1 <= len(messages) <= 2 and all("skipped an unreadable pair and used another" in text for text in messages)
    third.unlink()
    with pytest.raises(UserError, match="100 pairs in a row could not be read"):
        pairs[0, 60]


@pytest.mark.parametrize("change", ["other length", "other key frames", "frames out of order"])
def test_another_clip_of_equal_size_is_told_apart(tmp_path: Path, change: str) -> None:
    (path,) = write_prepared(tmp_path, (40,))
    length, gop = (39, 12) if change == "other length" else (40, 10 if change == "other key frames" else 12)
    frames = moving_shapes(length, (64, 96), seed=1)[0].permute(0, 2, 3, 1).contiguous().numpy()
    encode(path, frames, gop, **({"bf": "2"} if change == "frames out of order" else {}))
    (row,) = read_manifest(tmp_path).to_pylist()
    write_manifest(tmp_path, [row | {"bytes": path.stat().st_size}], {"short_side": 64, "gop": 12})
    with pytest.raises(VideoError, match=r"0000.mp4: (is not the clip of 40 frames|has no key frame at frame 12)"):
        PreparedClips.read(tmp_path)[0].read([15])


def test_half_a_manifest_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    whole = (folder / MANIFEST).read_bytes()
    assert is_prepared(folder) and not is_prepared(tmp_path)
    (tmp_path / MANIFEST).write_bytes(whole[: len(whole) // 2])
    assert is_prepared(tmp_path)
    with pytest.raises(UserError, match="half-written"):
        PreparedClips.read(tmp_path)


@pytest.mark.parametrize("lengths", [(30, 24, 41), tuple(range(14, 60))], ids=["few clips", "many clips"])
@pytest.mark.parametrize("pairs", [0, 1, 4])
def test_what_is_held_out_is_what_a_folder_of_videos_would_hold_out(
    folder: Path, lengths: tuple[int, ...], pairs: int
) -> None:
    clips = made_up(folder, lengths)
    training, held_out = clips.without_held_out(pairs, 2)
    expected_training, expected = split_held_out(list(clips), pairs, 2)
    assert [(e.name, e.start, e.stop) for e in held_out] == [(e.name, e.start, e.stop) for e in expected]
    frames = {clip.name: int(used) for clip, used in zip(training, training.frames, strict=True) if used}
    assert frames == {video.name: len(video) for video in expected_training}
    # No pair reaches into what is held out.
    assert training.count_pairs(2).sum() == sum(max(0, len(video) - 2) for video in expected_training)
    assert clips.frames.tolist() == list(lengths)


def test_hours_are_those_that_a_folder_of_videos_would_take(folder: Path) -> None:
    clips = made_up(folder, tuple(range(14, 80)))
    total = sum(range(14, 80)) / 24 / 3600
    for hours in (1e-9, total / 3, total * 0.99, total * 2):
        for seed in (0, 1):
            part = clips.within_hours(hours, seed)
            expected = select_hours(list(clips), hours, seed)
            assert [(clip.name, len(clip)) for clip in part] == [(clip.name, len(clip)) for clip in expected]
            assert part.frames.tolist() == [len(clip) for clip in expected]


def test_clips_without_a_pair_are_left_out_and_listed(folder: Path) -> None:
    skipped: list[Skipped] = []
    clips = PreparedClips.read(folder).long_enough(29, skipped)
    assert [len(clip) for clip in clips] == [30, 41]
    assert skipped == [Skipped("0001.mp4", "too short for pairs 29 apart")]
    with pytest.raises(UserError, match="none of the 3 clips"):
        PreparedClips.read(folder).long_enough(41, [])


def test_memory_and_moved_folders_change_nothing(folder: Path, tmp_path: Path) -> None:
    clips = PreparedClips.read(folder)
    cached = clips.in_memory(0.0006)  # enough for the first clip
    assert [isinstance(clip, PreparedClip) for clip in cached] == [False, True, True]
    plain, from_memory = pairs_of(clips), pairs_of(cached)
    keys = [(0, 3), (0, 9), (0, 40)]
    for one, other in zip(plain.__getitems__(keys), from_memory.__getitems__(keys), strict=True):
        assert torch.equal(one["pair"], other["pair"])
    write_prepared(tmp_path)
    assert PreparedClips.read(tmp_path).identity() == clips.identity()
    assert clips.only(np.array([True, False, True])).identity() != clips.identity()


def test_a_prepared_folder_is_still_one_of_videos(folder: Path) -> None:
    assert len(find_videos(folder)) == 3


def made_up(folder: Path, lengths: tuple[int, ...]) -> PreparedClips:
    """A manifest of clips that do not exist."""
    table = read_manifest(folder)
    row = table.to_pylist()[0]
    made = folder.parent / f"made-up-{len(lengths)}"
    made.mkdir(exist_ok=True)
    rows = [row | {"name": f"{number:04x}.mp4", "frames": length} for number, length in enumerate(lengths)]
    write_manifest(made, rows, {"short_side": 64, "gop": 12})
    return PreparedClips.read(made)
