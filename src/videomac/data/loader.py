"""The order in which a run takes its samples, and the loader that hands them out from any step on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import DataLoader, Dataset, default_collate

from videomac.config import TrainConfig
from videomac.data.order import Order, ShuffledOrder
from videomac.errors import UserError
from videomac.utils.device import torchrun_shape, usable_cores
from videomac.utils.seeding import check_seed


class PairSampler:
    """The keys of one process, micro-batch by micro-batch: the `batch_sampler` of a data loader over `FramePairs`.

    Every optimizer step takes the next `global_batch_size` pairs of the epoch's order. Rank r of w processes takes each
    w-th of them from the r-th on (or, where neighbours are read together, the r-th part of w), and cuts its share into
    `accumulate` micro-batches; shares and micro-batches that do not come out even differ by one pair. What does not
    fill a batch at the end of an epoch is left out. Like PyTorch's `DistributedSampler`, it goes through the same epoch
    again until `set_epoch` is called.

    Attributes:
        steps_per_epoch: optimizer steps of a whole epoch.
        epoch: the one that is iterated over next, counted from 0.
        first_step: the step of it to begin with; 0, except in the epoch that contains `start_step`.
    """

    def __init__(
        self,
        pairs: int | Order,
        *,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        seed: int = 0,
        start_step: int = 0,
    ) -> None:
        """Begin at optimizer step `start_step`, counted over the whole run.

        Args:
            pairs: length of the data set, to be shuffled by the seed, or the order itself.
            global_batch_size: pairs per optimizer step, over all processes and micro-batches.
            rank: of this process, in 0..world_size - 1.
            world_size: number of processes.
            accumulate: micro-batches per optimizer step.
            seed: not negative.
            start_step: steps already taken, for resuming.

        Raises:
            UserError: the pairs do not fill one batch, or a micro-batch would be empty.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1}, not {rank}")
        require_full_shares(global_batch_size, world_size, accumulate)
        self._order = ShuffledOrder(pairs, check_seed(seed)) if isinstance(pairs, int) else pairs
        if len(self._order) < global_batch_size:
            raise UserError(
                f"{len(self._order)} pairs of frames do not fill one batch of {global_batch_size}: add videos, or set "
                f"global_batch_size to {len(self._order)} or less"
            )
        self._global_batch_size = global_batch_size
        self._rank, self._world_size, self._accumulate = rank, world_size, accumulate
        self.steps_per_epoch = len(self._order) // global_batch_size
        self.epoch, self.first_step = divmod(start_step, self.steps_per_epoch)

    @property
    def sampler(self) -> PairSampler:
        """Itself: Lightning looks for `set_epoch` in the `sampler` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, to its beginning unless it is the present one."""
        if epoch != self.epoch:
            self.epoch, self.first_step = epoch, 0

    def __len__(self) -> int:
        """Return the number of micro-batches left in this epoch."""
        return (self.steps_per_epoch - self.first_step) * self._accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the (epoch, index) keys of each micro-batch."""
        epoch, size = self.epoch, self._global_batch_size
        for step in range(self.first_step, self.steps_per_epoch):
            batch = self._order.take(epoch, step * size, (step + 1) * size)
            for micro_batch in np.array_split(self._share(batch), self._accumulate):
                yield [(epoch, index) for index in micro_batch.tolist()]

    def _share(self, batch: Int64[np.ndarray, " pairs"]) -> Int64[np.ndarray, " share"]:
        if self._order.together > 1:  # then neighbours stay with one process
            return np.array_split(batch, self._world_size)[self._rank]
        return batch[self._rank :: self._world_size]


def require_full_shares(global_batch_size: int, world_size: int, accumulate: int) -> None:
    """Refuse a batch that is too small to give every process something in every micro-batch.

    Raises:
        UserError: it is.
    """
    if global_batch_size < world_size * accumulate:
        raise UserError(
            f"global_batch_size {global_batch_size} is too small for {world_size} process(es) with {accumulate} "
            f"micro-batches each: make it {world_size * accumulate} or more, or take fewer of them"
        )


class TrainingData:
    """The samples of a training, in the order in which the run takes them; loaders start at any optimizer step.

    Attributes:
        samples: the data set; its keys are (epoch, index).
        identity: of what it consists; equal when a run may be resumed on it. The first key says what is counted.
        steps_per_epoch: optimizer steps of an epoch.
        total_steps: optimizer steps of the run.
        num_epochs: epochs that these begin.
    """

    def __init__(
        self,
        samples: Dataset[Any],
        length: int,
        config: TrainConfig,
        *,
        identity: dict[str, Any],
        unit: str,
        sample_bytes: int,
        order: Order | None = None,
    ) -> None:
        """Count the steps.

        Args:
            samples: see the class.
            length: of an epoch.
            config: the options.
            identity: see the class.
            unit: what a sample is called, such as "training pairs".
            sample_bytes: size of one sample in memory.
            order: in which the samples are taken, if they are not shuffled.

        Raises:
            UserError: too few samples for one batch.
        """
        self.samples, self.length, self.config, self.identity = samples, length, config, identity
        self.sample_bytes = sample_bytes
        self._order = order
        self.steps_per_epoch = length // config.global_batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{config.data} holds {length} {unit}, fewer than one batch: "
                f"lower global_batch_size ({config.global_batch_size}), or {config.for_little_data}"
            )
        self.total_steps = self.steps_per_epoch * config.epochs if config.steps is None else config.steps
        self.num_epochs = -(-self.total_steps // self.steps_per_epoch)

    def loader(self, start_step: int, rank: int, world_size: int) -> DataLoader[Any]:
        """Return the micro-batches of one process from optimizer step `start_step` to the end of the run."""
        workers = self.num_workers(world_size)
        return ResumableLoader(
            self.samples,
            batch_sampler=self._whole_run(start_step, rank, world_size),
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_main_process,
            persistent_workers=workers > 0,  # which also lets the trainer end them when the run fails
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=self.prefetch(world_size) if workers else None,
        )

    def ends_epoch(self, step: int) -> bool:
        """Whether the run pauses after optimizer step `step` (from 1), to be evaluated and saved.

        That is at the end of each epoch and of the run. Of a run that is measured in steps, whose epochs may be very
        short, it is at about fifty epochs' ends.
        """
        few = 1 if self.config.steps is None else -(-self.num_epochs // 50)
        return step % (self.steps_per_epoch * few) == 0 or step == self.total_steps

    def num_workers(self, world_size: int) -> int:
        """Processes that read for each device."""
        if self.config.workers != "auto":
            return self.config.workers
        shape = torchrun_shape()
        devices = shape[0] if shape else max(1, world_size // self.config.num_nodes)  # of this machine
        return min(8, max(1, usable_cores() // devices - 1))

    def prefetch(self, world_size: int) -> int:
        """Micro-batches that each of these processes reads ahead: four, or fewer if a device's would exceed 1 GiB."""
        ahead = max(1, self.num_workers(world_size)) * self.micro_batch(world_size) * self.sample_bytes
        return min(4, max(1, 2**30 // ahead))

    def micro_batch(self, world_size: int) -> int:
        """Samples that go through a device at once, at most."""
        return -(-self.config.global_batch_size // (world_size * self.config.micro_batches))

    def batches(self, step: int, rank: int, world_size: int) -> Iterator[Any]:
        """Read the micro-batches of one process of optimizer step `step` (from 0) again, in this process."""
        keys = islice(iter(self._whole_run(step, rank, world_size)), self.config.micro_batches)
        return (default_collate([self.samples[key] for key in micro_batch]) for micro_batch in keys)

    def _whole_run(self, start_step: int, rank: int, world_size: int) -> WholeRun:
        config = self.config
        sampler = PairSampler(
            self.length if self._order is None else self._order,
            global_batch_size=config.global_batch_size,
            rank=rank,
            world_size=world_size,
            accumulate=config.micro_batches,
            seed=config.seed,
            start_step=start_step,
        )
        return WholeRun(sampler, self.total_steps * config.micro_batches, start_step * config.micro_batches)


class WholeRun:
    """The micro-batches of all epochs in a row, from where the sampler stands.

    Its length is that of the whole run, resumed or not, which is how the trainer and its bar count.
    """

    def __init__(self, sampler: PairSampler, length: int, start: int) -> None:
        self.pairs, self.length, self.start = sampler, length, start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield the keys of one micro-batch after the other."""
        return islice(self._endless(), self.length - self.start)

    def _endless(self) -> Iterator[list[tuple[int, int]]]:
        for epoch in count(self.pairs.epoch):
            self.pairs.set_epoch(epoch)
            yield from self.pairs

    def __len__(self) -> int:
        """Return the number of micro-batches of the whole run."""
        return self.length


class QuietLoader(DataLoader[Any]):
    """A loader that takes the number of workers as it is given."""

    def check_worker_number_rationality(self) -> None:
        """Leave out PyTorch's advice to take no more workers than cores: whoever asks for more knows why."""


class ResumableLoader(QuietLoader):
    """A loader without a state of its own: where it starts follows from the trainer's step.

    The two methods tell the trainer that resuming in the middle is intended.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing."""


def leave_signals_to_the_main_process(_worker: int) -> None:
    """Keep reading after Ctrl-C or SIGTERM to the whole group: the main process finishes its step, saves and ends us.

    If it is stuck half a minute after SIGTERM, an alarm ends us; if it is gone, whatever ended it, we are within a
    second.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # nothing of ours is worth a farewell
