"""Seeds that are functions of numbers, such as (seed, epoch, index), and random states that are put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from videomac.errors import UserError


def hashed(*numbers: int) -> int:
    """A well-mixed number of 64 bits, a function of the given ones alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def mixed_seed(*numbers: int) -> int:
    """A well-mixed seed of 63 bits, which every library takes."""
    return hashed(*numbers) >> 1


def check_seed(seed: int) -> int:
    """Return a seed if it can be one.

    Raises:
        UserError: it is negative.
    """
    if seed < 0:
        raise UserError(f"seed must not be negative, but is {seed}")
    return seed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let Python, numpy and PyTorch draw from a seed, and from where they were afterwards; timm uses all three."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
