"""Swap the layers of a network for block-aware ones, in place, and back.

A layer's class is exchanged and nothing else: parameters, buffers, hooks, names and the module tree stay what they
were, so state-dict keys are the network's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from videomac.sparse.block_aware import BlockAware, LayoutSlot, plain_class
from videomac.sparse.layers import BLOCK_AWARE, PerSample
from videomac.sparse.mixing import Mixing, PatchConv2d


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        name: its path in the network.
        layer: its class before the swap.
        became: "halo top,bottom,left,right", "batch statistics over visible positions", "per sample", "matrix
            product", "masked only" or "unchanged".
        obstacle: why it cannot work on blocks, or None.
    """

    name: str
    layer: str
    became: str
    obstacle: str | None = None


def convert(network: nn.Module, slot: LayoutSlot | None = None) -> tuple[LayoutSlot, list[LayerReport]]:
    """Make every layer of a network that looks across borders or takes statistics block-aware, in place.

    A network that was converted before keeps the slot it has.

    Returns:
        The slot that the layers read their layout from, and a report with one line for each layer.
    """
    slot = next((m.slot for m in network.modules() if isinstance(m, BlockAware)), slot or LayoutSlot())
    reports: list[LayerReport] = []
    _convert_children(network, "", slot, reports)
    return slot, reports


def restore(network: nn.Module) -> nn.Module:
    """Give every block-aware layer its own class back, in place."""
    for module in network.modules():
        if isinstance(module, BlockAware):
            module.__class__ = plain_class(type(module))  # type: ignore[assignment]  # a parent of its class, on purpose
            del module.slot
    return network


def _convert_children(module: nn.Module, path: str, slot: LayoutSlot, reports: list[LayerReport]) -> None:
    for name, child in module.named_children():
        full_name = f"{path}{name}"
        aware = _block_aware_class(child)
        if aware is None:
            if next(child.children(), None) is None and not isinstance(child, nn.Identity):
                reports.append(LayerReport(full_name, type(child).__name__, "unchanged"))
            _convert_children(child, f"{full_name}.", slot, reports)
            continue
        child.__class__ = aware
        assert isinstance(child, BlockAware)
        child.slot = slot
        layer = plain_class(aware).__name__
        reports.append(LayerReport(full_name, layer, child.describe(), child.obstacle()))
        if not isinstance(child, PerSample):  # what is inside a per-sample layer runs on whole samples already
            _convert_children(child, f"{full_name}.", slot, reports)


def _block_aware_class(module: nn.Module) -> type[BlockAware] | None:
    """The class to swap in (its own where that has happened), or None for a layer that may stay as it is."""
    if isinstance(module, BlockAware):
        return type(module)
    if type(module) is nn.Conv2d and PatchConv2d.fits(module):
        return PatchConv2d
    aware = BLOCK_AWARE.get(type(module))
    if aware is None or not issubclass(aware, Mixing):
        return aware
    probe = aware.__new__(aware)
    probe.__dict__ = module.__dict__
    assert isinstance(probe, Mixing)
    needs_nothing = probe.obstacle() is None and not probe.halo()
    return None if needs_nothing else aware
