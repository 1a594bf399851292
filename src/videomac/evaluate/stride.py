"""A hierarchical network's stages, and its later strides set to 1.

A hierarchical network is brought to a finer grid by setting later strides to 1 in a copy of it: the weights are
untouched, and every layer keeps its size by one-sided zero padding where its kernel is even (ConvNeXt's 2x2
downsampling). With `dilate`, the layers after a removed stride are dilated, and then every second cell of the finer
grid is exactly a cell of the plain network's; without, as CRW does it, filters see a smaller surrounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videomac.errors import UserError
from videomac.evaluate.protocols import Stride


class _Stop(Exception):
    """Carries a stage's output out of the forward pass."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class StageFeatures(nn.Module):
    """Output of one stage of a hierarchical network; what comes after it is not computed."""

    def __init__(self, model: Any, module: str, pool: int = 1) -> None:
        super().__init__()
        self.model, self.module, self.pool = model, module, pool
        model.get_submodule(module).register_forward_hook(_stop)

    def forward(self, frames: Tensor) -> Tensor:
        """The stage's map of normalised frames."""
        try:
            self.model.forward_features(frames)
        except _Stop as stop:
            return F.avg_pool2d(stop.output, self.pool) if self.pool > 1 else stop.output
        raise RuntimeError("the stage was never reached")


def _stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
    raise _Stop(output)


def network_name(backbone: Any) -> str:
    """Name of a backbone for messages and records: timm's if there is one, else the class's."""
    if isinstance(backbone, str):
        return backbone
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(backbone).__name__)


def stages_of(model: Any) -> list[tuple[str, int]]:
    """Module name and native stride of each stage with stride 4 and more.

    Of several modules of one stride the last is the stage: of a stem and what follows it, of the blocks of an isotropic
    network. But timm's `output_stride`, which is 8 at least, gives stages one stride that stay stages: they differ in
    width, or there is dilation where a stride was.
    """
    info = getattr(model, "feature_info", None) or []
    entries = [each for each in info if isinstance(each, dict) and each.get("module") and each["reduction"] >= 4]
    tells = "module" if _is_dilated(model) else "num_chs"
    last = {(each["reduction"], each["reduction"] > 4 and each[tells]): each for each in entries}
    stages = [(str(each["module"]), int(each["reduction"])) for each in last.values()]
    if hasattr(model, "stage_norms"):  # a ConvNeXt of the authors' code: a norm after each stage belongs to it
        count = len(model.stage_norms)
        stages = [(f"stage_norms.{index}", reduction) for index, (_, reduction) in enumerate(stages[:count])]
    return stages


def _is_dilated(model: Any) -> bool:
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return any(max(module.dilation) > 1 for module in modules if isinstance(module, nn.Conv2d))


def at_stage(model: nn.Module, stage: int, stride: Stride, dilate: bool) -> tuple[nn.Module, str]:
    """A network that gives one stage at a stride, and the stage's name.

    Args:
        model: a network that is changed (strides are set to 1): hand over a copy.
        stage: 1 for stride 4 and so on, or -1 for the last; a network of one stage has no other. With `output_stride` a
            stage has the number that it has without.
        stride: pixels per cell; a multiple of the stage's own is reached by averaging cells.
        dilate: dilate the layers after a removed stride.

    Raises:
        UserError: there is no such stage, or it cannot have this stride.
    """
    stages = stages_of(model)
    isotropic = len(stages) == 1
    if stage != -1 and not isotropic and not 1 <= stage <= len(stages):
        raise UserError(f"{network_name(model)} has stages 1 to {len(stages)}: stage {stage} does not exist")
    number = len(stages) if stage == -1 or isotropic else stage
    module, native = stages[number - 1]
    target = native if stride == "native" else stride
    if target < native:
        _destride(model, module, native, target, dilate)
    if target > native and target % native:
        raise UserError(
            f"stage {number} of {network_name(model)} has stride {native}: a stride of {target} is no multiple"
        )
    return StageFeatures(model, module, pool=max(1, target // native)), f"{number} ({module})"


def _destride(model: Any, last: str, native: int, target: int, dilate: bool) -> None:
    """Set every stride to 1 that would make the map coarser than `target`, up to the module named `last`."""
    side = 4 * native
    seen: list[tuple[str, nn.Module, int]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.append((name, module, side // inputs[0].shape[-1]))
        )
        for name, module in model.named_modules()
        if (hasattr(module, "stride") and hasattr(module, "kernel_size")) or type(module).__name__ == "BlurPool2d"
    ]
    probe = StageFeatures(model, last)
    parameter = next(model.parameters())
    model.eval()
    with torch.inference_mode():
        coarse = probe(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
    for hook in hooks:
        hook.remove()
    model.get_submodule(last)._forward_hooks.clear()
    if coarse.shape[-1] * native != side:
        raise UserError(f"{network_name(model)} is not of stride {native} at {last}: pass --stride native")
    for name, module, reduction in seen:
        if reduction >= target and (_pair(module.stride)[0] > 1 or (dilate and reduction > target)):
            _set_to_one(model, name, module, dilation=reduction // target if dilate else 1)
    probe = StageFeatures(model, last)
    with torch.inference_mode():
        fine = probe(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
    model.get_submodule(last)._forward_hooks.clear()
    if fine.shape[-2:] != (side // target, side // target):
        raise UserError(
            f"{network_name(model)} cannot be brought to stride {target} at {last} (it gives {fine.shape[-1]} cells "
            f"for {side} pixels): pass --stride native or another stage"
        )


def _set_to_one(model: nn.Module, name: str, module: Any, dilation: int) -> None:
    """Give one convolution or pooling stride 1, and padding such that cells stay where they were."""
    if type(module).__name__ == "BlurPool2d":
        module.stride = 1
        return
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    if max(kernel) == 1:
        module.stride = (1, 1)
        return
    if isinstance(module, nn.AvgPool2d):
        from timm.layers import AvgPool2dSame

        _replace(model, name, AvgPool2dSame(kernel[0], 1, count_include_pad=False))
        return
    if not isinstance(module, nn.Conv2d | nn.MaxPool2d):
        raise UserError(f"{network_name(model)}: the stride of {name} ({type(module).__name__}) cannot be set to 1")
    steps = [dilation * d for d in _pair(module.dilation)]
    same = type(module).__name__ in ("Conv2dSame", "MaxPool2dSame")  # timm's TensorFlow padding
    extent = [d * (k - 1) + 1 for d, k in zip(_pair(module.dilation), kernel, strict=True)]
    left = [(e - s) // 2 if same else p for e, s, p in zip(extent, stride, _padding(module), strict=True)]
    left = [dilation * p for p in left]
    right = [d * (k - 1) - p for d, k, p in zip(steps, kernel, left, strict=True)]
    value = -torch.inf if isinstance(module, nn.MaxPool2d) else 0.0
    if type(module).__name__ == "Conv2dSame":
        module.__class__ = nn.Conv2d  # the same layer without its own padding
    elif type(module).__name__ == "MaxPool2dSame":
        module.__class__ = nn.MaxPool2d
    module.stride, module.dilation, module.padding = (1, 1), tuple(steps), (0, 0)
    if isinstance(module, nn.MaxPool2d):
        module.ceil_mode = False
    borders = (left[1], right[1], left[0], right[0])
    if isinstance(module, nn.Conv2d) and left == right:
        module.padding = tuple(left)
        module._reversed_padding_repeated_twice = list(borders)
    else:
        module.register_forward_pre_hook(lambda module, inputs: (F.pad(inputs[0], borders, value=value),))


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(value[0]), int(value[1])]


def _padding(module: Any) -> list[int]:
    if isinstance(module.padding, str):
        raise UserError(f"a convolution with padding={module.padding!r} cannot have its stride removed")
    return _pair(module.padding)
