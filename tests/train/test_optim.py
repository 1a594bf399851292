from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from videomac.train.optim import learning_rate_at, parameter_groups, scaled_lr


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.token = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.wide = nn.ParameterDict({"bias": torch.zeros(2, 2)})
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def names(model: nn.Module, group: dict[str, object]) -> set[str]:
    chosen = {id(parameter) for parameter in group["params"]}  # type: ignore[attr-defined]
    return {name for name, parameter in model.named_parameters() if id(parameter) in chosen}


def test_groups_by_name() -> None:
    model = Small()
    decayed, spared = parameter_groups(model, 0.05)
    assert names(model, decayed) == {"convolution.weight", "token"}
    # A bias is spared whatever its shape; frozen parameters are in no group.
    assert names(model, spared) == {"convolution.bias", "norm.weight", "norm.bias", "wide.bias"}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)


def test_a_model_may_decay_small_parameters_after_all() -> None:
    class Exceptional(Small):
        def also_decayed(self) -> set[str]:
            return {"norm.weight", "norm.bias"}

    model = Exceptional()
    decayed, spared = parameter_groups(model, 0.05)
    assert names(model, decayed) == {"convolution.weight", "token", "norm.weight", "norm.bias"}
    assert names(model, spared) == {"convolution.bias", "wide.bias"}


def test_linear_rule() -> None:
    assert scaled_lr(1e-3, 512) == pytest.approx(2e-3)
    assert scaled_lr(1e-3, 256) == 1e-3


def test_learning_rate_warms_up_and_falls_on_a_cosine() -> None:
    rates = [learning_rate_at(step, 100, 10, 2e-3, 1e-5) for step in range(102)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(1e-3)
    assert rates[10] == pytest.approx(2e-3)
    assert rates[55] == pytest.approx((2e-3 + 1e-5) / 2)
    assert rates[40] == pytest.approx(1e-5 + (2e-3 - 1e-5) * (1 + math.cos(math.pi * 30 / 90)) / 2)
    assert rates[100] == rates[101] == pytest.approx(1e-5)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate_at(0, 10, 0, 1.0) == 1.0


def test_a_run_shorter_than_its_warm_up_never_divides_by_zero() -> None:
    assert [learning_rate_at(step, 2, 4, 1.0) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1.0, 0.0]
