"""Parameter groups and the learning rate: AdamW on a warm-up and a cosine (paper, section 3.3)."""

from __future__ import annotations

import math
from typing import TypedDict

from torch import nn


class ParameterGroup(TypedDict):
    """One entry of the list that torch's optimizers take."""

    params: list[nn.Parameter]
    weight_decay: float


def parameter_groups(model: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Split the trainable parameters in two: decayed, and not decayed (at most one dimension, or named `*.bias`).

    A model may name exceptions in a method `also_decayed()`, the set of small parameters that are decayed after all
    (`VideoMAC` does for the released code's GRN).
    """
    also_decayed: set[str] = model.also_decayed() if hasattr(model, "also_decayed") else set()  # type: ignore[operator]
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith(".bias")
            (spared if small and name not in also_decayed else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def scaled_lr(base_lr: float, global_batch_size: int) -> float:
    """The linear rule: `base_lr` is meant for 256 pairs per optimizer step."""
    return base_lr * global_batch_size / 256


def learning_rate_at(step: int, total_steps: int, warmup_steps: int, peak: float, minimum: float = 0.0) -> float:
    """Learning rate of optimizer step `step`: linear from 0 to `peak`, then a cosine down to `minimum`.

    Args:
        step: optimizer step, from 0; steps after `total_steps` keep `minimum`.
        total_steps: optimizer steps of the whole run.
        warmup_steps: length of the linear part; may be 0.
        peak: the highest learning rate, reached at step `warmup_steps`.
        minimum: the learning rate at step `total_steps`.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    return minimum + (peak - minimum) * (math.cos(math.pi * progress) + 1) / 2
