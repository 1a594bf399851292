from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.sample_videos import Numbers
from videomac.data import FramePairs, PairSampler, PairTransform, Video, cache_in_memory, find_videos
from videomac.data.loader import QuietLoader
from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.models.masking import MaskSampler
from videomac.utils.video_writer import write_frames, write_video


def pairs_of(videos: Sequence[Video], **options: object) -> FramePairs:
    masks = {name: options.pop(name) for name in ("grid", "mask_ratio", "symmetric") if name in options}
    sampler = MaskSampler(**{"grid": (4, 4), **masks})
    return FramePairs(videos, **{"transform": PairTransform(image_size=(32, 32)), "sample_mask": sampler, **options})


def values(sample: dict) -> list[int]:
    """The frames' values, with normalisation undone."""
    red = sample["pair"][..., 0, 0, 0] * 0.229 + 0.485
    return (red * 255).round().long().tolist()


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first)


# Pairs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1, 3])
def test_every_pair_of_one_video_is_a_sample_and_none_crosses_videos(gap: int) -> None:
    videos = [Numbers("a", 5), Numbers("too short", gap, 50), Numbers("b", 4, 100), Numbers("c", gap + 1, 200)]
    pairs = pairs_of(videos, frame_gap=gap)
    starts = [*range(5 - gap), *range(100, 104 - gap), 200]
    assert len(pairs) == len(starts)
    assert [values(pairs[0, index]) for index in range(len(pairs))] == [[start, start + gap] for start in starts]
    assert [pairs.locate(index)[1] for index in range(len(pairs))] == [start % 100 for start in starts]
    for index in (-1, len(pairs)):
        with pytest.raises(IndexError, match=str(index)):
            pairs.locate(index)


def test_a_gap_in_time_is_rounded_to_frames_of_each_video() -> None:
    videos = [Numbers("film", 4, fps=24.0), Numbers("phone", 5, 100, fps=60.0), Numbers("short", 2, 200, fps=60.0)]
    pairs = pairs_of(videos, frame_gap="40ms")
    found = [values(pairs[0, index]) for index in range(len(pairs))]
    assert found == [[0, 1], [1, 2], [2, 3], [100, 102], [101, 103], [102, 104]]


def test_shapes_and_types() -> None:
    transform = PairTransform(image_size=(32, 64))
    sample = pairs_of([Numbers("a", 5)], transform=transform, grid=(2, 4))[3, 2]
    assert sample["pair"].shape == (2, 3, 32, 64) and sample["pair"].dtype == torch.float32
    assert sample["mask"].shape == (2, 4) and sample["mask"].dtype == torch.bool
    assert int(sample["mask"].sum()) == 6 and sample["skipped"] == 0
    asymmetric = pairs_of([Numbers("a", 5)], transform=transform, grid=(4, 8), symmetric=False, mask_ratio=0.5)[3, 2]
    assert asymmetric["mask"].shape == (2, 4, 8)
    assert asymmetric["mask"].flatten(1).sum(dim=1).tolist() == [16, 16]
    assert not torch.equal(*asymmetric["mask"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files and a folder of frames."""
    root = tmp_path_factory.mktemp("clips")
    for seed in range(2):
        write_video(root / f"{seed}.mp4", moving_shapes(12, (48, 64), seed=seed)[0])
    write_frames(root / "frames", moving_shapes(10, (48, 64), seed=5)[0])
    return root


def test_samples_depend_on_seed_epoch_and_index_alone(clips: Path) -> None:
    pairs = pairs_of(find_videos(clips), grid=(8, 8))
    sample = pairs[2, 7]
    for index in [3, 20, 0]:
        assert not torch.equal(pairs[2, index]["mask"], sample["mask"])
    torch.manual_seed(99)
    assert same(pairs[2, 7], sample)
    assert same(pairs_of(find_videos(clips), grid=(8, 8))[2, 7], sample)
    for other in (pairs[3, 7], pairs_of(find_videos(clips), grid=(8, 8), seed=1)[2, 7]):
        assert not torch.equal(other["mask"], sample["mask"]) and not torch.equal(other["pair"], sample["pair"])


def test_masks_do_not_depend_on_the_augmentation(clips: Path) -> None:
    videos = find_videos(clips)
    masks = [
        pairs_of(videos, grid=(8, 8), transform=PairTransform(image_size=(64, 64), augmentation=augmentation))[0, 4][
            "mask"
        ]
        for augmentation in ("spatial", "color", "spatial+color", "none")
    ]
    assert all(torch.equal(mask, masks[0]) for mask in masks)


def test_memory_gives_the_same_samples(clips: Path) -> None:
    videos = find_videos(clips)
    on_disk, in_memory = pairs_of(videos), pairs_of(cache_in_memory(videos, gib=0.1))
    assert all(same(on_disk[0, index], in_memory[0, index]) for index in range(len(on_disk)))


def loaded(pairs: FramePairs, sampler: PairSampler, epochs: Sequence[int], **options: object) -> Iterator[dict]:
    loader = QuietLoader(pairs, batch_sampler=sampler, **options)
    for epoch in epochs:
        sampler.set_epoch(epoch)
        yield from loader


def test_workers_do_not_matter(clips: Path) -> None:
    pairs = pairs_of(find_videos(clips))

    def sampler() -> PairSampler:
        return PairSampler(len(pairs), global_batch_size=8, accumulate=2)

    alone = list(loaded(pairs, sampler(), [0, 1]))
    shared = list(loaded(pairs, sampler(), [0, 1], num_workers=2, persistent_workers=True, prefetch_factor=1))
    assert len(alone) == len(shared) == 2 * 2 * (31 // 8)
    assert all(same(first, second) for first, second in zip(alone, shared, strict=True))
    assert alone[0]["pair"].shape == (4, 2, 3, 32, 32) and alone[0]["skipped"].tolist() == [0] * 4


def test_bad_options_are_user_errors() -> None:
    for options, message in [
        ({"frame_gap": 0}, "frame_gap"),
        ({"frame_gap": 9}, "two frames 9 apart"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(UserError, match=message):
            pairs_of([Numbers("a", 5), Numbers("b", 9)], **options)
    with pytest.raises(UserError, match="none of 0 videos"):
        pairs_of([])


# Videos that cannot be read -------------------------------------------------------------------------------------------


def test_an_unreadable_pair_is_replaced_reported_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    videos = [Numbers("good", 40), Numbers("bad", 20, 100, broken=[5, 6])]
    pairs = pairs_of(videos)
    samples = [pairs[0, index] for index in range(len(pairs))]
    skipped = [index for index, sample in enumerate(samples) if sample["skipped"]]
    assert [pairs.locate(index)[1] for index in skipped] == [4, 5, 6] and min(skipped) >= 39
    for sample in samples:
        frame_a, frame_b = values(sample)
        assert frame_b == frame_a + 1 and not {105, 106} & {frame_a, frame_b}
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["skipped an unreadable pair and used another: /data/bad: cannot be decoded"]


def test_substitutes_are_deterministic_and_spread() -> None:
    videos = [Numbers("bad", 100, broken=range(100)), Numbers("good", 100, 100)]
    first, second = pairs_of(videos), pairs_of(videos)
    list(second[1, index] for index in (99, 5, 0))  # what was read before must not matter
    samples = [first[0, index] for index in range(99)]
    assert all(sample["skipped"] for sample in samples)
    assert all(same(sample, second[0, index]) for index, sample in enumerate(samples))
    assert len({values(sample)[0] for sample in samples}) > 40
    assert values(first[1, 0]) != values(first[0, 0]) or values(first[1, 1]) != values(first[0, 1])


def test_masks_and_crops_of_readable_pairs_do_not_change_when_another_breaks(clips: Path, tmp_path: Path) -> None:
    videos = find_videos(clips)
    whole = pairs_of(videos)
    damaged = pairs_of([*videos[:-1], Numbers("bad", len(videos[-1]), broken=range(50))])
    for index in range(20):
        assert same(whole[0, index], damaged[0, index])
    assert torch.equal(whole[0, 30]["mask"], damaged[0, 30]["mask"])


def test_everything_broken_is_a_user_error() -> None:
    pairs = pairs_of([Numbers("bad", 9, broken=range(9))])
    with pytest.raises(UserError, match=r"100 pairs in a row could not be read.*/data/bad: cannot"):
        pairs[0, 3]


def test_a_file_that_goes_bad_is_survived_by_the_loader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(3):
        write_video(tmp_path / f"{seed}.mp4", moving_shapes(10, (48, 64), seed=seed)[0])
    pairs = pairs_of(find_videos(tmp_path))
    path = tmp_path / "1.mp4"
    os.truncate(path, path.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        batches = list(loaded(pairs, PairSampler(len(pairs), global_batch_size=9), [0, 1]))
    assert len(batches) == 6 and sum(int(batch["skipped"].sum()) for batch in batches) == 18
    assert caplog.text.count("unreadable") == 1 and str(path) in caplog.text


def test_a_user_error_in_a_worker_stays_one() -> None:
    pairs = pairs_of([Numbers("bad", 9, broken=range(9))])
    with pytest.raises(UserError, match="could not be read"):
        list(loaded(pairs, PairSampler(len(pairs), global_batch_size=4), [0], num_workers=1))


# Real videos ----------------------------------------------------------------------------------------------------------


def test_real_clips(shared_data: Path) -> None:
    videos = find_videos(shared_data / "pretrain")
    pairs = pairs_of(videos, transform=PairTransform(), grid=(7, 7))
    assert len(pairs) == 7608 - 87
    sampler = PairSampler(len(pairs), global_batch_size=8, start_step=3)
    for batch in [next(iter(DataLoader(pairs, batch_sampler=sampler)))]:
        assert batch["pair"].shape == (8, 2, 3, 224, 224) and int((~batch["mask"]).sum()) == 8 * 12
        assert batch["skipped"].sum() == 0
        # Consecutive frames resemble each other far more than different clips do.
        near = (batch["pair"][:, 0] - batch["pair"][:, 1]).abs().mean()
        far = (batch["pair"][:, 0] - batch["pair"][:, 1].roll(1, dims=0)).abs().mean()
        assert near < 0.4 * far
