from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from videomac.models.ema import momentum_at, update


def test_momentum_rises_from_start_to_end_on_a_cosine() -> None:
    assert momentum_at(0, 100) == pytest.approx(0.996)
    assert momentum_at(50, 100) == pytest.approx(0.998)
    assert momentum_at(25, 100) == pytest.approx(1 - 0.004 * (1 + math.cos(math.pi / 4)) / 2)
    assert momentum_at(100, 100) == 1.0
    assert momentum_at(101, 100) == 1.0
    schedule = [momentum_at(step, 100) for step in range(101)]
    assert schedule == sorted(schedule)


def test_equal_ends_hold_the_momentum() -> None:
    assert {momentum_at(step, 10, start=0.996, end=0.996) for step in range(12)} == {0.996}


def test_update_equals_a_loop_over_parameters_and_copies_buffers() -> None:
    torch.manual_seed(0)
    online = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).double()
    target = copy.deepcopy(online)
    for parameter in online.parameters():
        parameter.data = torch.randn_like(parameter)
    online[1].running_mean.fill_(3.5)
    online[1].num_batches_tracked.fill_(7)
    before = [p.detach().clone() for p in target.parameters()]
    online_before = copy.deepcopy(online.state_dict())

    update(target, online, 0.9)

    for old, new, source in zip(before, target.parameters(), online.parameters(), strict=True):
        for o, n, s in zip(old.flatten().tolist(), new.flatten().tolist(), source.flatten().tolist(), strict=True):
            assert n == pytest.approx(0.9 * o + 0.1 * s, rel=1e-12, abs=1e-15)
    assert target[1].running_mean.tolist() == [3.5] * 4
    assert target[1].num_batches_tracked.item() == 7
    assert all(torch.equal(value, online_before[key]) for key, value in online.state_dict().items())


def test_momentum_one_keeps_the_target_and_zero_copies_the_online_network() -> None:
    online, target = nn.Linear(3, 3), nn.Linear(3, 3)
    before = target.weight.detach().clone()
    update(target, online, 1.0)
    assert torch.equal(target.weight, before)
    update(target, online, 0.0)
    assert torch.equal(target.weight, online.weight)
