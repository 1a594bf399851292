"""The MAC encoder: any timm ConvNet, on the visible patches only (section 3.2 of the paper)."""

from __future__ import annotations

import copy
import re
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.sparse import Blocks, LayerReport, Layout, LayoutSlot, MaskedCanvas, audit, convert
from videomac.sparse.blocks import TableName

Mode = Literal["auto", "blocks", "masked"]


class SparseEncoder(nn.Module):
    """A ConvNet that sees nothing of hidden patches.

    A value at a visible position is a function of visible positions only; to a layer that mixes positions a hidden
    position is what lies outside the frame: 0, or minus infinity for max pooling. Without a mask the encoder is the
    dense network.

    Args:
        backbone: a timm name, or a network with timm's `forward_features`, which is used in place: its layers become
            block-aware, its parameters and state-dict keys stay.
        mode: "blocks" computes visible patches only; "masked" computes the whole frame and hides cells before every
            layer that mixes positions (the reference, and the fallback); "auto" takes blocks wherever the network
            allows it.
        output_stride: pixels per cell of the output, 32, 16 or 8: timm then builds the network so that its later
            strides become dilation, with the same weights (ConvNeXt, ResNet and some other families). None: what the
            network has. A network that is given as a module must have been built with it.

    Attributes:
        backbone: the network.
        mode: "blocks" or "masked".
        blocks_obstacle: why the network cannot run on blocks, or None.
        stride: pixels per cell of the output.
        num_features: channels of the output.
        layers: what became of each layer.

    Raises:
        UserError: neither mode (or not the one asked for) can run the network; the message names the layer. Or it does
            not have the `output_stride` asked for.
    """

    def __init__(self, backbone: str | nn.Module, mode: Mode = "auto", output_stride: int | None = None) -> None:
        super().__init__()
        network = create_backbone(backbone, output_stride) if isinstance(backbone, str) else backbone
        name = backbone if isinstance(backbone, str) else type(backbone).__name__
        if mode not in ("auto", "blocks", "masked"):
            raise ValueError(f"mode must be 'auto', 'blocks' or 'masked', not {mode!r}")
        try:
            examined = audit(network)
        except ValueError as error:
            raise UserError(_refusal(name, network, str(error))) from error
        if examined.masked_obstacle is not None:
            raise UserError(_refusal(name, network, examined.masked_obstacle))
        if output_stride not in (None, examined.stride):
            raise UserError(
                f"{name} has a stride of {examined.stride}, not the output_stride {output_stride} that is asked for: "
                "leave it out, or take a ConvNeXt or ResNet that timm builds with it"
            )
        if mode == "blocks" and examined.blocks_obstacle is not None:
            raise UserError(f"{name} cannot run in mode='blocks': {examined.blocks_obstacle}; mode='masked' can")
        self.mode: Literal["blocks", "masked"] = "masked" if mode == "masked" or examined.blocks_obstacle else "blocks"
        self.blocks_obstacle = examined.blocks_obstacle
        self.stride = examined.stride
        self.num_features = examined.num_features
        self.layers: list[LayerReport] = examined.layers
        self.backbone = network
        self._slot: LayoutSlot = convert(network)[0]
        self._table_names: dict[tuple[int, int, int, int], list[TableName]] = {}
        for parameter_name, parameter in network.named_parameters():
            # DDP must not wait for gradients of a head that pre-training never reaches.
            if parameter_name in examined.unreached:
                parameter.requires_grad_(False)

    def forward(
        self,
        frames: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch rows columns"] | Layout | None = None,
    ) -> Float[Tensor, "batch features h w"]:
        """Features of the frames.

        Args:
            frames: `[B, 3, H, W]`; what hidden patches hold is never read, not even NaN.
            mask: True = hidden; its grid divides the frame into square patches, a multiple of the stride wide. On any
                device. Or what `layout` or `prepare` made of it.

        Returns:
            `[B, C, H/stride, W/stride]`: timm's `forward_features`; exactly 0 where hidden.

        Raises:
            ValueError: the grid does not fit the frames or the stride, or the mask shows too little (see `Blocks`).
        """
        if mask is None:
            return self._features(frames)
        self._check(frames, mask if isinstance(mask, Tensor) else mask.mask)
        layout = self.layout(mask, frames.device) if isinstance(mask, Tensor) else mask
        if isinstance(layout, Blocks):
            return layout.unpack(self._run(layout.pack(frames), layout))
        visible_frames = layout.hide(frames).contiguous(memory_format=torch.channels_last)
        return layout.hide(self._run(visible_frames, layout))

    def layout(self, mask: Bool[Tensor, "batch rows columns"], device: torch.device | None = None) -> Layout:
        """Where a mask's visible patches lie; index tables are made when a layer first asks, and kept.

        Encoders of one kind (the online and the target network) can share it.

        Args:
            mask: True = hidden.
            device: that of the frames; None: the mask's.

        Raises:
            ValueError: the mask shows too little (see `Blocks`).
        """
        return Blocks(mask, device) if self.mode == "blocks" else MaskedCanvas(mask, device)

    def prepare(
        self, mask: Bool[Tensor, "batch rows columns"], patch_size: int, device: torch.device | None = None
    ) -> Layout:
        """`layout` with all its index tables: `torch.compile(encoder, dynamic=False)(frames, prepared)` is one graph.

        The first mask of a kind costs a forward pass of one frame, on a copy of the network, that shows which tables
        the layers ask for.

        Args:
            mask: True = hidden.
            patch_size: pixels per patch.
            device: that of the frames; None: the mask's.

        Raises:
            ValueError: the mask shows too little (see `Blocks`).
        """
        layout = self.layout(mask, device)
        if isinstance(layout, Blocks):
            kind = (layout.rows, layout.columns, layout.visible_per_sample, patch_size)
            if kind not in self._table_names:
                self._table_names[kind] = self._find_table_names(mask[:1].cpu(), patch_size)
            layout.make_tables(self._table_names[kind])
        return layout

    def _find_table_names(self, mask: Tensor, patch_size: int) -> list[TableName]:
        trial, blocks = copy.deepcopy(self).to_empty(device="cpu").float().eval(), Blocks(mask)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            # The type is said because a run in float64 makes that the default.
            size = (blocks.rows * patch_size, blocks.columns * patch_size)
            trial(torch.zeros(1, 3, *size, dtype=torch.float32), blocks)
        return list(blocks.tables)

    def _run(self, x: Tensor, layout: Layout) -> Tensor:
        self._slot.layout = layout
        try:
            return self._features(x)
        finally:
            self._slot.layout = None

    def _features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.backbone.forward_features(x))  # type: ignore[operator]

    def _check(self, frames: Tensor, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim != 3 or mask.shape[0] != frames.shape[0]:
            raise ValueError(
                f"mask must be bool [batch, rows, columns] with batch {frames.shape[0]} (True = hidden), "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )
        (height, width), (rows, columns) = frames.shape[2:], mask.shape[1:]
        if height % rows or width % columns or height // rows != width // columns:
            raise ValueError(f"a {rows}x{columns} mask does not cut {height}x{width} frames into square patches")
        if (height // rows) % self.stride:
            raise ValueError(
                f"patches of {height // rows} pixels are not a multiple of the network's stride {self.stride}"
            )


# Squeezing and exciting channels is called attention too, and no obstacle.
_ATTENTION = re.compile(r"^(?!Split|Selective|Channel|Spatial|Efficient).*(Attention|Attn)")


def _refusal(name: str, network: nn.Module, obstacle: str) -> str:
    """A sentence for users about a network that cannot run; attention is named, whatever it was that failed first."""
    found = ((path, type(module).__name__) for path, module in network.named_modules())
    attention = next(((path, kind) for path, kind in found if _ATTENTION.match(kind)), None)
    if attention is not None:
        convolves = sum(isinstance(module, nn.Conv2d) for module in network.modules()) > 1
        what = "it is partly a transformer" if convolves else "it is a vision transformer, not a ConvNet"
        obstacle = f"{what}: {attention[0]} ({attention[1]}) lets every place see every other"
    return f"{name} cannot be pre-trained: {obstacle}; choose a ConvNet, such as convnextv2_tiny or resnet50"
