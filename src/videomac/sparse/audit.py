"""Is a network understood? Not a matter of lists: two experiments on a copy of it decide.

The poison experiment runs the masked canvas and sets every hidden activation to NaN after each module: if a visible
cell turns NaN, some module mixes positions in a way the engine does not know, and it is named. The blocks experiment
compares blocks mode with the masked canvas, in float64, and names the first layer where they part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from videomac.sparse.block_aware import BlockAware, Layout, LayoutSlot, plain_class
from videomac.sparse.blocks import Blocks
from videomac.sparse.canvas import MaskedCanvas
from videomac.sparse.convert import LayerReport, convert, restore

_ROWS, _COLUMNS = 2, 3


@dataclass(frozen=True)
class Audit:
    """What the experiments showed.

    Attributes:
        stride: of the network's last feature map.
        num_features: its channels.
        blocks_obstacle: why the network cannot run on blocks (naming the layer), or None.
        masked_obstacle: why not on the masked canvas either, or None.
        layers: what became of each layer.
        unreached: parameters that `forward_features` does not use.
    """

    stride: int
    num_features: int
    blocks_obstacle: str | None
    masked_obstacle: str | None
    layers: list[LayerReport] = field(default_factory=list)
    unreached: frozenset[str] = frozenset()


def audit(network: nn.Module) -> Audit:
    """Examine a network (left untouched) once per architecture.

    Raises:
        ValueError: it has no `forward_features` that returns maps of one stride.
    """
    return _audit_once(_Architecture(network))


class _Architecture:
    """A network that equals another when both print alike: the key under which an audit is remembered."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        # Our swapped-in class names must not matter, nor the drop rates of a copy.
        self.text = repr(network) + str([tuple(p.shape) for p in network.parameters()])

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Architecture) and self.text == other.text


@lru_cache(maxsize=64)
def _audit_once(architecture: _Architecture) -> Audit:
    network = _specimen(architecture.network)
    architecture.network = nn.Identity()  # the cache keeps the text, not the network
    stride, num_features = _measure(network)
    unreached = _unreached(network, stride)
    slot, layers = convert(network)
    masked_obstacle = _poison(network, slot, stride)
    blocks_obstacle = next(
        (f"{layer.name} ({layer.layer}): {layer.obstacle}" for layer in layers if layer.obstacle), None
    )
    if masked_obstacle is None and blocks_obstacle is None:
        blocks_obstacle = _compare(network, slot, stride)
    return Audit(stride, num_features, blocks_obstacle or masked_obstacle, masked_obstacle, layers, unreached)


def _specimen(network: nn.Module) -> nn.Module:
    """A plain float64 copy on the CPU, in training mode, without chance, and with no parameter that hides a path."""
    specimen = restore(copy.deepcopy(network)).cpu().double().train()
    for module in specimen.modules():
        for rate in ("p", "drop_prob", "drop_rate", "drop_path_rate"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in specimen.parameters():
            # Layer scale, GRN and the last BatchNorm of a block start at 0 or 1e-6 and would hide what their branch
            # does.
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype))
            parameter.requires_grad_(True)
    return specimen


def _features(network: nn.Module, x: Tensor) -> Tensor:
    return cast(Tensor, network.forward_features(x))  # type: ignore[operator]


def _measure(network: nn.Module) -> tuple[int, int]:
    """Stride and channels of the last feature map, from two frames of different shape."""
    name = type(network).__name__
    if not hasattr(network, "forward_features"):
        raise ValueError(f"{name} has no forward_features method; give a timm network")
    strides = set()
    channels = 0
    for height, width in ((64, 128), (128, 192)):
        try:
            with torch.no_grad():
                maps = _features(network, torch.zeros(2, 3, height, width, dtype=torch.float64))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(f"{name} does not take frames of any size ({str(error).rstrip('.')})") from error
        if not isinstance(maps, Tensor) or maps.ndim != 4 or height % maps.shape[2] or width % maps.shape[3]:
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise ValueError(
                f"{name} is not a ConvNet with one stride: frames of {height}x{width} pixels give features {shape}"
            )
        channels = maps.shape[1]
        strides |= {height // maps.shape[2], width // maps.shape[3]}
    if len(strides) != 1:
        raise ValueError(f"{name} is not a ConvNet with one stride: it divides the frame by {sorted(strides)}")
    return strides.pop(), channels


def _unreached(network: nn.Module, stride: int) -> frozenset[str]:
    """Parameters without a gradient after a backward through the features."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 3, 2 * stride, 2 * stride, generator=generator, dtype=torch.float64)
    torch.autograd.backward(_features(network, frames).sum())
    names = frozenset(name for name, p in network.named_parameters() if p.grad is None)
    network.zero_grad(set_to_none=True)
    return names


def _experiment(stride: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    frames = torch.randn(3, 3, _ROWS * stride, _COLUMNS * stride, generator=generator, dtype=torch.float64)
    visible = torch.tensor(
        [[[1, 1, 0], [0, 0, 1]], [[0, 1, 0], [1, 1, 0]], [[1, 0, 1], [0, 1, 0]]], dtype=torch.bool
    )  # neighbours along both axes and corners, and blocks on their own
    return frames, ~visible


@contextmanager
def _laid_out(slot: LayoutSlot, layout: Layout) -> Iterator[None]:
    slot.layout = layout
    try:
        yield
    finally:
        slot.layout = None


def _poison(network: nn.Module, slot: LayoutSlot, stride: int) -> str | None:
    """Set every hidden activation to NaN after each module; name the first module that shows NaN in a visible cell."""
    frames, mask = _experiment(stride)
    canvas = MaskedCanvas(mask)
    culprit: list[str] = []
    entered = [""]

    def enter(name: str) -> object:
        def hook(module: nn.Module, inputs: object) -> None:
            entered[0] = f"{name} ({_class_name(module)})"

        return hook

    def poison(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> Tensor | None:
            visible = _visible_cells(output, canvas)
            if visible is None or culprit:
                return None
            assert isinstance(output, Tensor)
            if bool(torch.isnan(output.masked_select(visible)).any()):
                culprit.append(f"{name} ({_class_name(module)}) lets hidden positions into visible ones")
            return torch.where(visible, output, float("nan"))

        return hook

    handles = []
    for name, module in network.named_modules():
        if name and not _inside_per_sample(network, name):
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(poison(name))]
    try:
        with torch.no_grad(), _laid_out(slot, canvas):
            _features(network, torch.where(canvas.visible(*frames.shape[2:]), frames, float("nan")))
    except (ValueError, RuntimeError) as error:
        return culprit[0] if culprit else f"{entered[0]} fails on masked frames: {error}"
    finally:
        for handle in handles:
            handle.remove()
    return culprit[0] if culprit else None


def _inside_per_sample(network: nn.Module, name: str) -> bool:
    """Whether a module is a part of a block-aware layer, and so sees something else than the frame's map."""
    parts = name.split(".")
    return any(isinstance(network.get_submodule(".".join(parts[:i])), BlockAware) for i in range(1, len(parts)))


def _visible_cells(output: object, canvas: MaskedCanvas) -> Tensor | None:
    """The visible cells of a map `[B, C, h, w]` or `[B, h, w, C]`; None for anything else."""
    if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[0] != canvas.batch:
        return None
    height, width = output.shape[2:]
    if height * _COLUMNS == width * _ROWS and height % _ROWS == 0:
        return canvas.visible(height, width)
    height, width = output.shape[1:3]
    if height * _COLUMNS == width * _ROWS and height % _ROWS == 0:
        return canvas.visible(height, width).permute(0, 2, 3, 1)
    return None


def _compare(network: nn.Module, slot: LayoutSlot, stride: int) -> str | None:
    """Run both modes and name the first module where they differ."""
    frames, mask = _experiment(stride)
    blocks, canvas = Blocks(mask), MaskedCanvas(mask)
    seen: dict[str, Tensor] = {}
    first: list[str] = []

    def remember(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            visible = _visible_cells(output, canvas)
            if visible is not None and isinstance(output, Tensor):
                first_channels = visible.shape[1] == 1
                maps = output if first_channels else output.permute(0, 3, 1, 2)
                seen[name] = blocks.from_canvas(maps)

        return hook

    def check(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if name in seen and not first and isinstance(output, Tensor) and not _close(output, seen[name]):
                first.append(f"{name} ({_class_name(module)}) does not work on blocks")

        return hook

    def run(make_hook: object, layout: Layout, x: Tensor) -> Tensor:
        handles = [
            module.register_forward_hook(make_hook(name))  # type: ignore[operator]
            for name, module in network.named_modules()
            if name and not _inside_per_sample(network, name)
        ]
        try:
            with torch.no_grad(), _laid_out(slot, layout):
                return _features(network, x)
        finally:
            for handle in handles:
                handle.remove()

    reference = run(remember, canvas, canvas.hide(frames))
    try:
        result = run(check, blocks, blocks.pack(frames))
    except (ValueError, RuntimeError) as error:
        return first[0] if first else f"it fails on blocks: {error}"
    if _close(result, blocks.from_canvas(reference)):
        return None
    return (
        first[0]
        if first
        else f"{type(network).__name__} does something between its modules that blocks mode does not know"
    )


def _class_name(module: nn.Module) -> str:
    return (plain_class(type(module)) if isinstance(module, BlockAware) else type(module)).__name__


def _close(result: Tensor, reference: Tensor) -> bool:
    """Equal to rounding, whether channels come first or last."""
    if result.shape != reference.shape:
        result = result.permute(0, 3, 1, 2)
    if result.shape != reference.shape:
        return False
    scale = float(reference.abs().max()) or 1.0
    return bool(((result - reference).abs().max() / scale) < 1e-9)
