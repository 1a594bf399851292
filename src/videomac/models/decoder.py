"""The decoder: from the features of visible patches to the pixels of all of them (paper, section 3.2 "MAC Decoder")."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from videomac.sparse import upsample_mask


class Decoder(nn.Module):
    """A 1x1 projection, the mask token in hidden cells, a few ConvNeXt blocks and a 1x1 pixel head.

    Args:
        in_channels: channels of the encoder's features.
        stride: pixels per feature cell.
        patch_size: pixels per mask patch, a multiple of `stride`.
        width: channels of the decoder.
        depth: number of ConvNeXt blocks.
        use_grn: ConvNeXt V2 blocks (the released code) instead of V1 blocks (the paper's text); neither has layer
            scale.

    Raises:
        ValueError: `patch_size` is not a multiple of `stride`.
    """

    def __init__(
        self, in_channels: int, stride: int, patch_size: int, width: int = 512, depth: int = 1, use_grn: bool = False
    ) -> None:
        super().__init__()
        if patch_size % stride:
            raise ValueError(f"patch_size {patch_size} must be a multiple of the network's stride {stride}")
        self.stride = stride
        self.cells_per_patch = patch_size // stride
        self.projection = nn.Conv2d(in_channels, width, kernel_size=1)
        self.mask_token = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, use_grn=use_grn, ls_init_value=None) for _ in range(depth)))
        self.head = nn.Conv2d(width, stride * stride * 3, kernel_size=1)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        features: Float[Tensor, "batch channels height width"],
        mask: Bool[Tensor, "batch rows columns"],
    ) -> Float[Tensor, "batch patches values"]:
        """Predict every patch, visible ones too (the losses look at the hidden ones).

        Args:
            features: the encoder's output; what it holds in hidden cells is never read.
            mask: True = hidden.

        Returns:
            `[batch, rows * columns, patch_size * patch_size * 3]`, values in (row, column, channel) order.
        """
        hidden = upsample_mask(mask, features.shape[-2:])[:, None]
        cells = self.projection(features)
        cells = torch.where(hidden, self.mask_token.to(cells.dtype), cells)
        return self._join_cells(self.head(self.blocks(cells)))

    def _join_cells(self, pixels: Tensor) -> Tensor:
        """Put the pixels of a patch's cells together: `[B, stride * stride * 3, h, w]` to patch vectors."""
        batch, _, height, width = pixels.shape
        s, f = self.stride, self.cells_per_patch
        pixels = pixels.reshape(batch, s, s, 3, height // f, f, width // f, f).permute(0, 4, 6, 5, 1, 7, 2, 3)
        return pixels.reshape(batch, (height // f) * (width // f), f * s * f * s * 3)
