"""The sparse engine: a masked ConvNet that computes visible patches only.

`blocks` lays the visible patches out as a batch, `canvas` is the reference on the whole frame, `layers` and `mixing`
hold the layers that work on either, `convert` swaps them into a timm network and `audit` proves that the result means
what it should.
"""

from videomac.sparse.audit import Audit, audit
from videomac.sparse.block_aware import Layout, LayoutSlot
from videomac.sparse.blocks import Blocks
from videomac.sparse.canvas import MaskedCanvas, upsample_mask
from videomac.sparse.convert import LayerReport, convert, restore

__all__ = [
    "Audit",
    "Blocks",
    "LayerReport",
    "Layout",
    "LayoutSlot",
    "MaskedCanvas",
    "audit",
    "convert",
    "restore",
    "upsample_mask",
]
