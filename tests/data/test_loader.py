"""The order of a run's samples, and the loader that hands them out from any step on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from videomac.data.loader import PairSampler, QuietLoader, WholeRun
from videomac.data.order import GroupedOrder
from videomac.errors import UserError

Key = tuple[int, int]


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
    loader = DataLoader(list(range(45)), batch_sampler=sampler)
    assert len(loader) == 2


@pytest.mark.parametrize("together", [1, 2, 3])
@pytest.mark.parametrize(("world_size", "accumulate"), [(3, 2), (5, 1), (7, 3), (8, 1)])
def test_shares_of_a_batch_that_cannot_be_shared_evenly_differ_by_one_pair(
    together: int, world_size: int, accumulate: int
) -> None:
    def sampler(rank: int, world_size: int, accumulate: int) -> PairSampler:
        order = GroupedOrder(np.array([40, 13, 30]), 12, seed=1, together=together) if together > 1 else 83
        sizes = {"rank": rank, "world_size": world_size, "accumulate": accumulate}
        return PairSampler(order, global_batch_size=25, seed=1, **sizes)

    single = list(sampler(0, 1, 1))
    ranks = [list(sampler(rank, world_size, accumulate)) for rank in range(world_size)]
    assert len(single) == 3 and {len(keys) for keys in ranks} == {3 * accumulate}
    for step, batch in enumerate(single):
        micro_batches = [micro for keys in ranks for micro in keys[step * accumulate : (step + 1) * accumulate]]
        assert sorted(chain.from_iterable(micro_batches)) == sorted(batch)
        sizes = [len(micro) for micro in micro_batches]
        assert min(sizes) >= 25 // (world_size * accumulate) >= 1 and max(sizes) - min(sizes) <= 1
        shares = [sum(sizes[rank * accumulate : (rank + 1) * accumulate]) for rank in range(world_size)]
        assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize("order", [103, GroupedOrder(np.array([50, 7, 60]), 12, seed=2)], ids=["shuffled", "grouped"])
def test_eight_processes_then_four_then_eight_take_the_same_pairs_in_the_same_order(order: int | GroupedOrder) -> None:
    """The global batches are the same, step by step, whatever number of processes takes them."""

    def steps(world_size: int, first: int, last: int) -> list[list[Key]]:
        ranks = [
            PairSampler(order, global_batch_size=16, seed=2, rank=rank, world_size=world_size, start_step=first)
            for rank in range(world_size)
        ]
        batches = zip(*(islice(WholeRun(rank, last, first), last - first) for rank in ranks), strict=True)
        if isinstance(order, GroupedOrder):
            return [list(chain.from_iterable(shares)) for shares in batches]
        return [list(chain.from_iterable(zip(*shares, strict=True))) for shares in batches]

    whole = steps(1, 0, 20)
    assert len(whole) == 20 and len({epoch for batch in whole for epoch, _ in batch}) > 2
    assert steps(8, 0, 5) + steps(4, 5, 13) + steps(8, 13, 20) == whole


def test_too_few_pairs_and_empty_shares_are_user_errors() -> None:
    with pytest.raises(UserError, match=r"30 pairs of frames do not fill one batch of 32.*to 30 or less"):
        PairSampler(30, global_batch_size=32)
    with pytest.raises(UserError, match=r"5 is too small for 3 process.es. with 2 micro-batches .*make it 6 or more"):
        PairSampler(100, global_batch_size=5, world_size=3, accumulate=2)
    with pytest.raises(UserError, match="global_batch_size"):
        PairSampler(100, global_batch_size=0)
    with pytest.raises(UserError, match="seed"):
        PairSampler(100, global_batch_size=10, seed=-1)
    with pytest.raises(ValueError, match="rank"):
        PairSampler(100, global_batch_size=10, rank=2, world_size=2)
    assert len(PairSampler(32, global_batch_size=32)) == 1


def test_more_workers_than_cores_are_nobodys_business() -> None:
    """PyTorch would warn, and here a warning is an error; no worker starts before the first batch is asked for."""
    assert QuietLoader(list(range(4)), num_workers=10_000).num_workers == 10_000
