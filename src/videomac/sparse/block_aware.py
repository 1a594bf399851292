"""What every layer that knows about blocks has in common: its parent, and the slot it reads the layout from."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, cast

from torch import Tensor, nn

from videomac.sparse.blocks import Blocks
from videomac.sparse.canvas import MaskedCanvas

Layout: TypeAlias = "Blocks | MaskedCanvas"


class LayoutSlot:
    """Where an encoder puts the layout of the batch under way, for its own layers to read.

    All layers of one encoder share one slot, and no two encoders do; a deep copy or a pickle of the encoder keeps it
    so.
    """

    layout: Layout | None = None


class BlockAware(nn.Module):
    """Base of the swapped-in layers; comes before the parent layer in the method resolution order."""

    slot: LayoutSlot
    kind: ClassVar[str]

    def forward(self, x: Tensor) -> Tensor:
        """Run as the parent without a mask, on blocks or on the masked canvas with one."""
        layout = self.slot.layout
        if layout is None:
            return self.parent_forward(x)
        if isinstance(layout, Blocks):
            return self.on_blocks(x, layout)
        return self.on_canvas(x, layout)

    def parent_forward(self, x: Tensor) -> Tensor:
        """What the unmodified layer computes."""
        return cast(Tensor, super().forward(x))

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        """`[B*K, C, P, P]` to `[B*K, C', P', P']`."""
        raise NotImplementedError

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        """`[B, C, H, W]` to `[B, C', H', W']`; hidden cells hold anything, before and after."""
        raise NotImplementedError

    def obstacle(self) -> str | None:
        """Why this layer cannot work on blocks, or None when it can."""
        return None

    def describe(self) -> str:
        """What became of the layer, in a few words."""
        return self.kind


def plain_class(cls: type[BlockAware]) -> type[nn.Module]:
    """The layer class that a block-aware class stands in for."""
    return next(base for base in cls.__mro__ if issubclass(base, nn.Module) and not issubclass(base, BlockAware))
