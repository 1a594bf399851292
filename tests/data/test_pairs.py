from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from videomac.data import FramePairs, PairSampler, PairTransform, Video, VideoError, cache_in_memory, find_videos
from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.models.masking import MaskSampler
from videomac.utils.video_writer import write_frames, write_video

Key = tuple[int, int]


class Numbers:
    """A video of even colour whose frame n has the value `first` + n, some of whose frames cannot be read."""

    fps = 10.0

    def __init__(self, name: str, num_frames: int, first: int = 0, broken: Sequence[int] = ()) -> None:
        self.name, self._num_frames, self._first, self._broken = name, num_frames, first, broken

    def __len__(self) -> int:
        return self._num_frames

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        if set(indices) & set(self._broken):
            raise VideoError(f"/data/{self.name}: cannot be decoded")
        values = torch.tensor([self._first + index for index in indices], dtype=torch.uint8)
        return values.view(-1, 1, 1, 1).repeat(1, 3, 16, 16)


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
    loader = DataLoader(pairs, batch_sampler=sampler, **options)
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
    assert lines == ["other pairs take the place of unreadable ones: /data/bad: cannot be decoded"]


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


# Order ----------------------------------------------------------------------------------------------------------------


def epochs_of(sampler: PairSampler, epochs: Sequence[int]) -> list[list[Key]]:
    batches = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        length = len(sampler)
        batches.append(list(sampler))
        assert len(batches[-1]) == length
    return list(chain.from_iterable(batches))


def test_an_epoch_visits_every_pair_at_most_once_and_leaves_out_the_rest() -> None:
    sampler = PairSampler(103, global_batch_size=10)
    keys = list(chain.from_iterable(epochs_of(sampler, [4])))
    assert len(keys) == len(set(keys)) == 100 and sampler.steps_per_epoch == 10
    assert {epoch for epoch, _ in keys} == {4} and all(0 <= index < 103 for _, index in keys)
    # Over many epochs nothing is left out for good.
    seen = Counter(index for _, index in chain.from_iterable(epochs_of(sampler, range(10))))
    assert set(seen) == set(range(103)) and max(seen.values()) <= 10


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = epochs_of(PairSampler(50, global_batch_size=10, seed=3), range(3))
    torch.manual_seed(7)
    assert epochs_of(PairSampler(50, global_batch_size=10, seed=3), range(3)) == first
    assert epochs_of(PairSampler(50, global_batch_size=10, seed=3), [2]) == first[10:]
    orders = [tuple(index for _, index in chain.from_iterable(first[start : start + 5])) for start in (0, 5, 10)]
    other_seed = chain.from_iterable(epochs_of(PairSampler(50, global_batch_size=10, seed=4), [0]))
    assert len({*orders, tuple(index for _, index in other_seed)}) == 4
    assert all(order != tuple(range(50)) for order in orders)


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (1, 4), (3, 2), (4, 3)])
def test_ranks_and_micro_batches_share_out_the_same_global_batches(world_size: int, accumulate: int) -> None:
    single = epochs_of(PairSampler(100, global_batch_size=24, seed=1), [0, 1])
    ranks = [
        epochs_of(
            PairSampler(100, global_batch_size=24, seed=1, rank=rank, world_size=world_size, accumulate=accumulate),
            [0, 1],
        )
        for rank in range(world_size)
    ]
    for step, batch in enumerate(single):
        micro_batches = [keys[step * accumulate : (step + 1) * accumulate] for keys in ranks]
        assert all(len(micro) == 24 // world_size // accumulate for rank in micro_batches for micro in rank)
        for rank, share in enumerate(micro_batches):
            assert list(chain.from_iterable(share)) == batch[rank::world_size]


@pytest.mark.parametrize("start", [0, 1, 3, 4, 5, 8, 11])
def test_resuming_anywhere_continues_the_same_keys(start: int) -> None:
    options = {"global_batch_size": 10, "accumulate": 2, "seed": 5}
    whole = epochs_of(PairSampler(45, **options), range(3))  # 4 steps an epoch
    sampler = PairSampler(45, start_step=start, **options)
    assert (sampler.epoch, sampler.first_step) == divmod(start, 4)
    assert len(sampler) == 2 * (4 - start % 4)
    assert epochs_of(sampler, range(start // 4, 3)) == whole[2 * start :]
    assert sampler.first_step == 0 or start > 8


def test_the_loader_may_iterate_before_set_epoch() -> None:
    """Lightning asks for the first iterator before it names the epoch, and names it again later."""
    sampler = PairSampler(45, global_batch_size=10, start_step=6)
    early = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) == early and len(early) == 2
    assert sampler.sampler is sampler
    loader = DataLoader(pairs_of([Numbers("a", 46)]), batch_sampler=sampler)
    assert len(loader) == 2


def test_too_few_pairs_and_uneven_batches_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"30 pairs of frames do not fill one batch of 32.*to 30 or less"):
        PairSampler(30, global_batch_size=32)
    with pytest.raises(UserError, match=r"32 cannot be shared evenly by 3 processes with 2 .* multiple of 6"):
        PairSampler(100, global_batch_size=32, world_size=3, accumulate=2)
    with pytest.raises(UserError, match="global_batch_size"):
        PairSampler(100, global_batch_size=0)
    with pytest.raises(UserError, match="seed"):
        PairSampler(100, global_batch_size=10, seed=-1)
    with pytest.raises(ValueError, match="rank"):
        PairSampler(100, global_batch_size=10, rank=2, world_size=2)
    assert len(PairSampler(32, global_batch_size=32)) == 1


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
