"""Parameter groups and the learning rate: AdamW on a warm-up and a cosine (paper, section 3.3).

Fine-tuning takes groups of its own: deeper layers learn faster, small tensors do not decay (ConvNeXt V2's recipe).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import torch
from jaxtyping import Float
from timm.models import group_parameters
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from videomac.config import TrainConfig

Grouping = Literal["single", "group"]
BLOCKS_PER_GROUP = 3


class ParameterGroup(TypedDict):
    """One entry of the list that torch's optimizers take."""

    params: list[nn.Parameter]
    weight_decay: float


def parameter_groups(model: nn.Module, weight_decay: float) -> list[ParameterGroup]:
    """Split the trainable parameters in two: decayed, and not decayed (at most one dimension, or named `*.bias`).

    A model may name exceptions in a method `weight_decay_exceptions()`, the set of small parameters that are decayed
    after all (`VideoMAC` does for the released code's GRN).
    """
    named: Any = getattr(model, "weight_decay_exceptions", set)
    exceptions: set[str] = named()
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith(".bias")
            (spared if small and name not in exceptions else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def adamw(groups: Sequence[ParameterGroup], config: TrainConfig) -> AdamW:
    """AdamW as one fused update, which alone can refuse a step on the device (`found_inf`) without being waited for."""
    untyped: list[Any] = [*groups]
    optimizer = AdamW(untyped, lr=0.0, betas=config.betas, fused=True)
    if config.precision != "16-mixed":  # nothing is scaled, so gradients may be clipped
        optimizer._step_supports_amp_scaling = False
    return optimizer


def refuse_unless_finite(
    optimizer: Optimizer, loss: Float[Tensor, ""], refused: Float[Tensor, ""] | None, *, look_at_gradients: bool = True
) -> Float[Tensor, ""]:
    """Let a fused optimizer leave all weights alone if something is NaN or infinite, without asking the device.

    Call it between backward and `optimizer.step()`.

    Args:
        optimizer: of `adamw`.
        loss: of the step.
        refused: what this returned in the step before; a run in which one step is refused refuses all that follow.
        look_at_gradients: not where a gradient scaler does.

    Returns:
        1 if the step is refused, else 0; on the device.
    """
    bad = ~loss.isfinite()
    if look_at_gradients:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        bad = bad | ~torch.stack(torch._foreach_norm(gradients)).isfinite().all()
    now = bad.float() if refused is None else torch.maximum(refused, bad.float())
    optimizer.found_inf = now  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    return now


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


class LayerGroup(ParameterGroup):
    """A group whose learning rate depends on its depth."""

    lr_scale: float
    """The group's learning rate is the schedule's times this."""


def layer_decay_groups(
    model: nn.Module, *, weight_decay: float, layer_decay: float, grouping: Grouping
) -> list[LayerGroup]:
    """Groups of equal layer id and weight decay, from the stem to the head.

    A layer's learning rate is scaled by `layer_decay ** (last id - id)`: 1 for the head. Tensors of one dimension,
    those named `*.bias`, `*.gamma` or `*.beta`, and those that the network itself exempts do not decay.

    Args:
        model: a timm network with its classifier; frozen parameters are left out.
        weight_decay: of all other tensors.
        layer_decay: above 0 and at most 1, which gives every layer the same learning rate.
        grouping: see `layer_ids`.
    """
    ids = layer_ids(model, grouping)
    last = max(ids.values())
    exempt: Any = getattr(model, "no_weight_decay", set)()
    groups: dict[tuple[int, float], LayerGroup] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            small = parameter.ndim <= 1 or name.endswith((".bias", ".gamma", ".beta")) or name in exempt
            decay = 0.0 if small else weight_decay
            scale = layer_decay ** (last - ids[name])
            new: LayerGroup = {"params": [], "weight_decay": decay, "lr_scale": scale}
            groups.setdefault((ids[name], decay), new)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def layer_ids(model: nn.Module, grouping: Grouping) -> dict[str, int]:
    """Layer id of every parameter, rising from the stem to the head.

    Of a ConvNeXt, "single" numbers the blocks from 1, and stem and down-samplers share the id of the block that
    follows them. "group" is coarser, for deep networks: the stem is 0, each of the first two stages is one layer, and
    so are the last one and every three blocks of the third; down-samplers belong to what follows them. Norms and
    classifier after the last stage come last. Other networks are numbered as timm numbers them (their
    `group_matcher`), whatever the grouping.

    Raises:
        ValueError: the network is no ConvNeXt and tells timm nothing about its layers.
    """
    if isinstance(model, ConvNeXt):
        stages: Any = model.stages
        depths = [len(stage.blocks) for stage in stages]
        number = _single if grouping == "single" else _group
        return {name: number(name, depths) for name, _ in model.named_parameters()}
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        raise ValueError(f"{type(model).__name__} does not tell its layers apart (it has no group_matcher)")
    ids: dict[str, int] = group_parameters(model, matcher(coarse=False), reverse=True)
    return ids


def _single(name: str, depths: list[int]) -> int:
    if name.startswith("stem"):
        return 1
    stage, block = _place(name, depths)
    return sum(depths[:stage]) + block + 1


def _group(name: str, depths: list[int]) -> int:
    if name.startswith("stem"):
        return 0
    layers = [1 if stage != 2 else -(-depth // BLOCKS_PER_GROUP) for stage, depth in enumerate(depths)]
    stage, block = _place(name, depths)
    return sum(layers[:stage]) + (block // BLOCKS_PER_GROUP if stage == 2 else 0) + 1


def _place(name: str, depths: list[int]) -> tuple[int, int]:
    """Stage and block that a parameter belongs to; a stage that does not exist for what follows the last one."""
    if match := re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)|downsample)", name):
        return int(match[1]), int(match[2] or 0)
    if match := re.match(r"stage_norms\.(\d+)", name):  # of the released code: after a stage's last block
        return int(match[1]), depths[int(match[1])] - 1
    return len(depths), 0
