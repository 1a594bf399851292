"""The target network's exponential moving average and its momentum (paper, section 3.2 and Fig. 3)."""

from __future__ import annotations

import math

import torch
from torch import nn


def momentum_at(step: int, total_steps: int, start: float = 0.996, end: float = 1.0) -> float:
    """Momentum for the update after optimizer step `step`, rising on a cosine from `start` to `end` over the run.

    Args:
        step: optimizer step, from 0; steps after `total_steps` keep `end`.
        total_steps: optimizer steps of the whole run, at least 1.
        start: momentum at step 0.
        end: momentum at step `total_steps`. `end=start` is the released code's behaviour: there the schedule starts
            again in every epoch and so hardly leaves 0.996.
    """
    progress = min(step / total_steps, 1.0)
    return end - (end - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def update(target: nn.Module, online: nn.Module, momentum: float) -> None:
    """Move `target` towards `online`: parameters to `momentum * target + (1 - momentum) * online`, buffers copied.

    Call it once per optimizer step. Both modules must have the same parameters and buffers in the same order.
    """
    torch._foreach_lerp_([*target.parameters()], [*online.parameters()], 1 - momentum)
    for buffer, source in zip(target.buffers(), online.buffers(), strict=True):
        buffer.copy_(source)
