"""The online autoencoder and its slow copy, the target network (paper, Fig. 3)."""

from __future__ import annotations

import copy

from jaxtyping import Bool, Float
from torch import Tensor, nn

from videomac.models.decoder import Decoder
from videomac.models.encoder import SparseEncoder
from videomac.sparse import Layout


class MaskedAutoencoder(nn.Module):
    """A sparse encoder that sees visible patches only, and a decoder that predicts all of them.

    Args:
        encoder: `SparseEncoder`.
        decoder: `Decoder` for its stride and channels.
    """

    def __init__(self, encoder: SparseEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(
        self, frames: Float[Tensor, "batch 3 height width"], mask: Bool[Tensor, "batch rows columns"] | Layout
    ) -> Float[Tensor, "batch patches values"]:
        """Reconstruct frames from their visible patches: `[B, rows * columns, patch * patch * 3]`."""
        hidden = mask.to(frames.device) if isinstance(mask, Tensor) else mask.mask
        prediction: Tensor = self.decoder(self.encoder(frames, mask), hidden)
        return prediction


class TargetNetwork(MaskedAutoencoder):
    """A copy of the online network that no gradient reaches; `VideoMAC.update_target` moves it.

    In training its drop path and dropout stay off, and BatchNorm takes the statistics of the batch without touching
    its buffers: running statistics, copied from the online network, are never those of the target's own weights.
    After `.eval()` it uses the running statistics like any network.
    """

    def __init__(self, online: MaskedAutoencoder) -> None:
        super().__init__(copy.deepcopy(online.encoder), copy.deepcopy(online.decoder))
        self.requires_grad_(False)
        for batch_norm in self._batch_norms():
            batch_norm.track_running_stats = False
        self.train(online.training)

    def train(self, mode: bool = True) -> TargetNetwork:
        """Set the mode: nothing random in either, batch statistics in training."""
        super().train(False)
        self.training = mode
        for batch_norm in self._batch_norms():
            batch_norm.training = mode
        return self

    def _batch_norms(self) -> list[nn.modules.batchnorm._BatchNorm]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
