"""Feature maps of any backbone: timm ConvNets at any stage and stride, ViTs, raw pixels, any module.

A hierarchical network is brought to a finer grid by setting later strides to 1 in a copy of it: the weights are
untouched, and every layer keeps its size by one-sided zero padding where its kernel is even (ConvNeXt's 2x2
downsampling). With `dilate`, the layers after a removed stride are dilated, and then every second cell of the finer
grid is exactly a cell of the plain network's; without, as CRW does it, filters see a smaller surrounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videomac.errors import UserError
from videomac.evaluate.protocols import Stride

RAW_PIXELS = "raw-pixels"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


class FeatureExtractor(nn.Module):
    """A backbone as a function from frames to feature maps with `ceil(H / stride)` rows.

    Attributes:
        stride: pixels per cell.
        channels: length of a cell's feature.
        description: what the numbers depend on, for the record.
    """

    def __init__(
        self,
        backbone: nn.Module | Callable[[Tensor], Tensor] | str,
        *,
        stage: int = -1,
        stride: Stride = "native",
        dilate: bool = False,
        normalization: Literal["backbone", "imagenet", "dino"] = "backbone",
        required: bool = False,
    ) -> None:
        """Prepare a backbone; it is copied, never changed.

        Args:
            backbone: a timm network; any other module or function `[B, 3, H, W] -> [B, C, h, w]`, whose features are
                taken as they are; or "raw-pixels".
            stage: of a hierarchical network, 1 to 4 (strides 4 to 32); -1 is the last.
            stride: pixels per cell to evaluate at.
            dilate: dilate the layers after a removed stride.
            normalization: whose mean and deviation the pixels get.
            required: refuse a stride that the network cannot have; otherwise its native stride is used.

        Raises:
            UserError: there is no such stage, or the stride cannot be had.
        """
        super().__init__()
        self.network: nn.Module
        name, native = _name(backbone), True
        if isinstance(backbone, str):
            if backbone != RAW_PIXELS:
                raise UserError(f"{backbone!r} must be loaded first (videomac.evaluate.features.load)")
            self.network = nn.PixelUnshuffle(8 if stride == "native" else stride)
            stage_name = "pixels"
        elif isinstance(backbone, nn.Module) and _is_hierarchical(backbone):
            if len(_stages(backbone)) == 1 and not required:  # isotropic: there is nothing to take strides from
                stride = "native"
            self.network, stage_name = _at_stage(copy.deepcopy(backbone), stage, stride, dilate)
            native = stride == "native"
        elif _is_vit(backbone):
            self.network, stage_name = _ViTFeatures(copy.deepcopy(backbone)), "last"
        else:
            self.network = copy.deepcopy(backbone) if isinstance(backbone, nn.Module) else _Function(backbone)
            stage_name = "output"
        self.network.eval()
        self.stride, self.channels, self.pads = _probe(self.network, name)
        if stride not in ("native", self.stride):
            if required or not native:
                raise UserError(
                    f"{name} has features of stride {self.stride} only, not {stride}: pass --stride native, "
                    "or a network with several stages"
                )
        mean, std = _pixel_statistics(backbone, normalization)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.description: dict[str, Any] = {
            "backbone": name,
            "stage": stage_name,
            "stride": self.stride,
            "channels": self.channels,
            "dilate": dilate and not native,
            "mean": [round(value, 4) for value in mean],
            "std": [round(value, 4) for value in std],
        }

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of a frame."""
        return -(-height // self.stride), -(-width // self.stride)

    def forward(self, frames: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        """Features of RGB frames with values in [0, 1].

        Frames that the stride does not divide are padded at the right and bottom with the mean colour, unless the
        network itself rounds the size of its map up.

        Raises:
            ValueError: the map has not the size it should have.
        """
        height, width = frames.shape[-2:]
        frames = (frames - self.mean) / self.std
        if self.pads:
            frames = F.pad(frames, (0, -width % self.stride, 0, -height % self.stride))
        features: Tensor = self.network(frames)
        if features.shape[-2:] != self.grid(height, width):
            raise ValueError(
                f"{self.description['backbone']} gives a {tuple(features.shape[-2:])} map for {height}x{width} frames, "
                f"but stride {self.stride} means {self.grid(height, width)}"
            )
        return features


def load(
    backbone: str | Path,
    *,
    weights: Path | None = None,
    pretrained: bool | None = None,
    network: Literal["online", "target"] = "online",
    seed: int = 0,
) -> tuple[nn.Module | str, str]:
    """A backbone from what a user names.

    Args:
        backbone: timm name; folder or file of ours or of the authors; or "raw-pixels".
        weights: state dict for a timm name.
        pretrained: download timm's weights; None: if the name has a tag.
        network: which network of a pre-training run.
        seed: of random weights.

    Returns:
        The network, and where its weights are from.

    Raises:
        UserError: nothing of that name, or weights that do not fit.
    """
    from videomac.backbones import create_backbone
    from videomac.checkpoint import load_backbone

    name = str(backbone)
    if name == RAW_PIXELS:
        return RAW_PIXELS, "none"
    path = Path(name)
    if path.is_file() and path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        path = path.parent
    if path.exists():
        return load_backbone(path, which=network), f"{name} ({network})"
    if path.suffix in (".ckpt", ".pth", ".pt", ".safetensors") or name.startswith(("/", "./", "../")):
        raise UserError(f"{name} does not exist: check the path, or name a timm network")
    download = pretrained if pretrained is not None else "." in name or ":" in name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_backbone(name, pretrained=download)
    if weights is None:
        return model, "timm" if download else f"random (seed {seed})"
    _load_state(model, weights, name)
    return model, str(weights)


def _load_state(model: nn.Module, path: Path, name: str) -> None:
    """Load a plain state dict, without classifier, into a timm network."""
    from videomac.files import read_safetensors, read_torch

    state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no state dict: save torch.save(model.state_dict(), ...)")
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or wrong:
        reason = f"it has no {missing[0]}" if missing else f"{wrong[0]} has another shape"
        raise UserError(f"{path} does not fit {name}: {reason} ({len(missing)} missing, {len(wrong)} of another shape)")
    model.load_state_dict({key: state[key] for key in own})


class _Function(nn.Module):
    """Any function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, frames: Tensor) -> Tensor:
        return self.function(frames)


class _ViTFeatures(nn.Module):
    """Last block of a timm ViT after the final norm, prefix tokens dropped, as a map; any frame size."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        embed = getattr(model, "patch_embed", None)
        if hasattr(model, "dynamic_img_size") and embed is not None and not model.dynamic_img_size:
            from timm.layers.format import Format

            # What timm's own `dynamic_img_size=True` does when a model is made: position embeddings are resampled
            # (bicubic) to the frame's grid.
            model.dynamic_img_size = True
            embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, Format.NHWC

    def forward(self, frames: Tensor) -> Tensor:
        features: Tensor = self.model.forward_intermediates(frames, indices=1, norm=True, intermediates_only=True)[-1]
        return features


class _Stop(Exception):
    """Carries a stage's output out of the forward pass."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


class _StageFeatures(nn.Module):
    """Output of one stage of a hierarchical network; what comes after it is not computed."""

    def __init__(self, model: Any, module: str, pool: int = 1) -> None:
        super().__init__()
        self.model, self.pool = model, pool
        model.get_submodule(module).register_forward_hook(_stop)

    def forward(self, frames: Tensor) -> Tensor:
        try:
            self.model.forward_features(frames)
        except _Stop as stop:
            return F.avg_pool2d(stop.output, self.pool) if self.pool > 1 else stop.output
        raise RuntimeError("the stage was never reached")


def _stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
    raise _Stop(output)


def _name(backbone: Any) -> str:
    if isinstance(backbone, str):
        return backbone
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return str(config.get("architecture") or type(backbone).__name__)


def _pixel_statistics(backbone: Any, normalization: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if normalization == "dino":
        return DINO
    config = getattr(backbone, "pretrained_cfg", None) or {}
    if normalization == "imagenet" or not config.get("mean"):
        return IMAGENET
    return tuple(config["mean"]), tuple(config["std"])


def _stages(model: Any) -> list[tuple[str, int]]:
    """Module name and native stride of each stage with stride 4 and more, the last module of each stride."""
    info = getattr(model, "feature_info", None) or []
    entries = [entry for entry in info if isinstance(entry, dict) and entry.get("module")]
    stages = {int(entry["reduction"]): str(entry["module"]) for entry in entries if entry["reduction"] >= 4}
    if hasattr(model, "stage_norms"):  # a ConvNeXt of the authors' code: a norm after each stage belongs to it
        stages = {
            reduction: f"stage_norms.{index}"
            for index, reduction in enumerate(stages)
            if index < len(model.stage_norms)
        }
    return [(module, reduction) for reduction, module in stages.items()]


def _is_hierarchical(model: Any) -> bool:
    return hasattr(model, "forward_features") and not _is_vit(model) and bool(_stages(model))


def _is_vit(model: Any) -> bool:
    return hasattr(model, "forward_intermediates") and hasattr(model, "blocks") and hasattr(model, "patch_embed")


def _at_stage(model: nn.Module, stage: int, stride: Stride, dilate: bool) -> tuple[nn.Module, str]:
    """A network's stage at a stride, and the stage's name. The network is changed: strides are set to 1."""
    stages = _stages(model)
    isotropic = len(stages) == 1
    if stage != -1 and not isotropic and not 1 <= stage <= len(stages):
        raise UserError(f"{_name(model)} has stages 1 to {len(stages)}: stage {stage} does not exist")
    number = len(stages) if stage == -1 or isotropic else stage
    module, native = stages[number - 1]
    target = native if stride == "native" else stride
    if target < native:
        _destride(model, module, native, target, dilate)
    if target > native and target % native:
        raise UserError(f"stage {number} of {_name(model)} has stride {native}: a stride of {target} is no multiple")
    return _StageFeatures(model, module, pool=max(1, target // native)), f"{number} ({module})"


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
    probe = _StageFeatures(model, last)
    parameter = next(model.parameters())
    model.eval()
    with torch.inference_mode():
        coarse = probe(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
    for hook in hooks:
        hook.remove()
    model.get_submodule(last)._forward_hooks.clear()
    if coarse.shape[-1] * native != side:
        raise UserError(f"{_name(model)} is not of stride {native} at {last}: pass --stride native")
    for name, module, reduction in seen:
        if reduction >= target and (_pair(module.stride)[0] > 1 or (dilate and reduction > target)):
            _set_to_one(model, name, module, dilation=reduction // target if dilate else 1)
    probe = _StageFeatures(model, last)
    with torch.inference_mode():
        fine = probe(torch.zeros(1, 3, side, side, dtype=parameter.dtype, device=parameter.device))
    model.get_submodule(last)._forward_hooks.clear()
    if fine.shape[-2:] != (side // target, side // target):
        raise UserError(
            f"{_name(model)} cannot be brought to stride {target} at {last} (it gives {fine.shape[-1]} cells for "
            f"{side} pixels): pass --stride native or another stage"
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
        raise UserError(f"{_name(model)}: the stride of {name} ({type(module).__name__}) cannot be set to 1")
    steps = [dilation * d for d in _pair(module.dilation)]
    same = type(module).__name__ in ("Conv2dSame", "MaxPool2dSame")  # timm's TensorFlow padding
    left = [(k - s) // 2 if same else p for k, s, p in zip(kernel, stride, _padding(module), strict=True)]
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


def _probe(network: nn.Module, name: str) -> tuple[int, int, bool]:
    """Stride, channels, and whether frames that the stride does not divide must be padded."""
    parameter = next(network.parameters(), torch.zeros(()))
    floating = parameter.dtype if parameter.is_floating_point() else torch.float32

    def shape_for(side: int) -> tuple[int, ...]:
        output = network(torch.zeros(1, 3, side, side, dtype=floating, device=parameter.device))
        return tuple(int(size) for size in getattr(output, "shape", ()))

    shape: tuple[int, ...] = ()
    problem = ""
    with torch.inference_mode():
        for side in (160, 224):  # patches of 16 and of 14
            try:
                shape = shape_for(side)
                break
            except (RuntimeError, AssertionError, ValueError) as error:
                problem = f": {str(error).splitlines()[0]}"
        else:
            raise UserError(f"{name} cannot take frames of any size{problem}")
        if len(shape) != 4 or shape[2] != shape[3] or not shape[2] or side % shape[2]:
            raise UserError(
                f"{name} must map frames [B, 3, H, W] to feature maps [B, C, H / s, W / s], but makes {shape} of "
                f"[1, 3, {side}, {side}]"
            )
        stride = side // shape[2]
        if stride == 1:
            return 1, shape[1], False
        try:
            rounds_up = shape_for(4 * stride + 1)[2] == 5
        except (RuntimeError, AssertionError, ValueError):
            rounds_up = False
    return stride, shape[1], not rounds_up
