"""Random states that are put back."""

from __future__ import annotations

import random

import numpy as np
import torch

from videomac.utils.seeding import seeded


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(1).item()


def test_what_is_drawn_depends_on_the_seed_alone_and_leaves_every_generator_as_it_was() -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    with seeded(1):
        first = draw()
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[2])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    draw()
    with seeded(1):
        assert draw() == first
    with seeded(2):
        assert all(a != b for a, b in zip(draw(), first, strict=True))
