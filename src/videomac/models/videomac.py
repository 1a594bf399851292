"""VideoMAC: the paper on one page.

Two consecutive frames lose the same random patches. The online network reconstructs the first frame, a slow moving
average of it (the target network) the second; both are judged on the hidden patches (Eq. 1), and the two
reconstructions must agree (Eq. 2). docs/method.md maps every equation to a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from videomac.config import require_decoder_fits, require_mask_ratio, require_something_to_train
from videomac.errors import UserError
from videomac.models import ema, losses, official, official_checkpoint
from videomac.models.autoencoder import MaskedAutoencoder, TargetNetwork
from videomac.models.backbones import create_backbone
from videomac.models.decoder import Decoder
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import MaskSampler
from videomac.sparse import Layout, upsample_mask


@dataclass
class VideoMACOutput:
    """What one forward pass gives. Losses are scalars; predictions `[B, rows * columns, patch * patch * 3]`.

    All three losses are always measured; `loss` (Eq. 3) sums those that are switched on.
    """

    loss: Tensor
    """Eq. 3, the one to call `backward()` on."""
    online_loss: Tensor
    """Eq. 1 for frame a."""
    target_loss: Tensor
    """Eq. 1 for frame b."""
    consistency_loss: Tensor
    """Eq. 2."""
    mask: Tensor
    """The mask in use, True = hidden: `[B, rows, columns]`, or `[B, 2, rows, columns]` when asymmetric."""
    online_prediction: Tensor
    """Patches of frame a; normalised per patch if `norm_pix_loss`."""
    target_prediction: Tensor
    """Patches of frame b, by the target network."""
    feature_std: Tensor
    """Collapse watch: standard deviation of the online features over samples and visible cells, mean over channels."""


class PreparedMask(NamedTuple):
    """The layouts of the masks of frames a and b: one object where both lose the same patches (`VideoMAC.prepare`)."""

    a: Layout
    b: Layout


PATCH_SIZE = 32
"""Pixels per patch: the paper's, which is the stride that ConvNeXt and ResNet have unless `output_stride` is given."""


class VideoMAC(nn.Module):
    """Masked video modelling for ConvNets: an online and a target autoencoder on a pair of frames.

    Args:
        backbone: timm name, or a timm module (used in place).
        mask_ratio: share of the patches to hide, in (0, 1).
        patch_size: pixels per mask patch, a multiple of the network's stride; None: the stride (32 for most networks),
            and 32 whatever the `output_stride`: a finer map of the same patches. Smaller patches make an easier task.
        symmetric: both frames lose the same patches; False: each its own, equally many (Table 3d).
        decoder_width: channels of the decoder.
        decoder_depth: blocks of the decoder.
        gamma: weight of the consistency loss in Eq. 3.
        norm_pix_loss: reconstruct pixels normalised per patch, as the paper does; False: as given.
        mode: how the encoder computes: "auto", "blocks" or "masked"; see `SparseEncoder`.
        preset: "paper", or "official" for the released code's choices (docs/method.md lists them).
        online_loss: count the online loss (Eq. 1, frame a) in Eq. 3.
        target_loss: count the target loss (Eq. 1, frame b).
        consistency_loss: count the consistency loss (Eq. 2).
        target_gradient: a second reading of the target loss. By default it is the error of the target network, which
            no gradient reaches, so it shifts the logged loss and trains nothing. True: the online network
            reconstructs frame b as well, and that error is the target loss and trains it.
        backbone_args: timm's arguments for a `backbone` given by name, such as `drop_path_rate`.
        output_stride: pixels per cell of the encoder's output, 32, 16 or 8; see `SparseEncoder`. It becomes one of
            the `backbone_args`, with which timm opens the exported network again.

    Raises:
        ValueError: a ratio outside (0, 1), a patch that is not a multiple of the stride, an unknown preset, or losses
            switched off such that nothing would train the online network.
        UserError: an unknown backbone, or one that cannot have this `output_stride`.
    """

    def __init__(
        self,
        backbone: str | nn.Module,
        mask_ratio: float = 0.75,
        patch_size: int | None = None,
        symmetric: bool = True,
        decoder_width: int = 512,
        decoder_depth: int = 1,
        gamma: float = 1.0,
        norm_pix_loss: bool = True,
        mode: Literal["auto", "blocks", "masked"] = "auto",
        preset: Literal["paper", "official"] = "paper",
        online_loss: bool = True,
        target_loss: bool = True,
        consistency_loss: bool = True,
        target_gradient: bool = False,
        backbone_args: Mapping[str, Any] | None = None,
        output_stride: int | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        require_mask_ratio(mask_ratio)
        require_decoder_fits(decoder_width, decoder_depth)
        if patch_size is not None and patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {patch_size}")
        if preset not in ("paper", "official"):
            raise ValueError(f'preset must be "paper" or "official", got {preset!r}')
        require_something_to_train(online_loss, target_loss, consistency_loss, gamma, target_gradient)
        name = backbone if isinstance(backbone, str) else _architecture(backbone)
        backbone_args = dict(backbone_args or {})
        if output_stride is not None:
            backbone_args["output_stride"] = output_stride
        self.arguments = {**arguments, "backbone": name, "backbone_args": backbone_args}
        """The constructor's arguments as plain values: what a checkpoint keeps, to build the model again."""
        self.loss_weights = (float(online_loss), float(target_loss), gamma * consistency_loss)
        """Of the online, target and consistency loss in Eq. 3; 0 for one that is switched off."""
        self.mask_ratio, self.symmetric, self.preset = mask_ratio, symmetric, preset
        self.norm_pix_loss, self.target_gradient = norm_pix_loss, target_gradient

        network = create_backbone(backbone, **backbone_args) if isinstance(backbone, str) else backbone
        is_official = preset == "official"
        if is_official:
            network = official.normalize_over_batch(official.add_stage_norms(network))
        encoder = SparseEncoder(network, mode=mode, output_stride=output_stride)
        self.patch_size = patch_size or (encoder.stride if output_stride is None else PATCH_SIZE)
        decoder = Decoder(
            encoder.num_features, encoder.stride, self.patch_size, decoder_width, decoder_depth, use_grn=is_official
        )
        self.online = MaskedAutoencoder(encoder, decoder)
        if is_official and isinstance(backbone, str):
            official.initialize(self.online)
        self.target = TargetNetwork(self.online)

    def forward(
        self,
        pair: Float[Tensor, "batch 2 3 height width"],
        mask: Bool[Tensor, "batch *frame rows columns"] | PreparedMask | None = None,
    ) -> VideoMACOutput:
        """Hide, encode, reconstruct, compare.

        Args:
            pair: two frames of a video, ImageNet-normalised.
            mask: True = hidden; `[B, rows, columns]` for both frames, or one for each, `[B, 2, rows, columns]`, as
                `sample_mask` makes them, on any device; or what `prepare` made of it. None: a new one from torch's
                global random state.

        Raises:
            ValueError: shapes that do not fit, a mask of another patch size or that hides nothing.
        """
        if mask is None:
            mask = self.sample_mask(len(pair), (pair.shape[-2], pair.shape[-1]))
        if isinstance(mask, Tensor):
            self._check(pair, mask)
            mask = self._lay_out(mask, lambda one: self.online.encoder.layout(one, pair.device))
        frame_a, frame_b = pair.unbind(1)
        hidden_a, hidden_b = mask.a.mask, mask.b.mask

        features = self.online.encoder(frame_a, mask.a)
        online_prediction = self.online.decoder(features, hidden_a)
        with torch.no_grad():
            target_prediction = self.target(frame_b, mask.b)
        prediction_b = self.online(frame_b, mask.b) if self.target_gradient else target_prediction

        online_loss = losses.reconstruction_loss(online_prediction, self.reconstruction_target(frame_a), hidden_a)
        target_loss = losses.reconstruction_loss(prediction_b, self.reconstruction_target(frame_b), hidden_b)
        consistency_loss = losses.consistency_loss(online_prediction, target_prediction, hidden_a & hidden_b)
        return VideoMACOutput(
            loss=self.total_loss(online_loss, target_loss, consistency_loss),
            online_loss=online_loss,
            target_loss=target_loss,
            consistency_loss=consistency_loss,
            mask=hidden_a if mask.a is mask.b else torch.stack([hidden_a, hidden_b], dim=1),
            online_prediction=online_prediction,
            target_prediction=target_prediction,
            feature_std=feature_std(features.detach(), hidden_a),
        )

    def sample_mask(
        self, batch: int, image_size: tuple[int, int], generator: torch.Generator | None = None
    ) -> Bool[Tensor, "batch *frame rows columns"]:
        """Random masks for `batch` pairs of frames of `image_size` = (height, width) pixels.

        Returns:
            `[batch, rows, columns]`, or `[batch, 2, rows, columns]` when masks are asymmetric.
        """
        height, width = image_size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"frames of {height}x{width} pixels do not divide into patches of {self.patch_size}")
        grid = (height // self.patch_size, width // self.patch_size)
        return MaskSampler(grid, self.mask_ratio, self.symmetric)(batch, generator)

    def prepare(
        self, mask: Bool[Tensor, "batch *frame rows columns"], device: torch.device | None = None
    ) -> PreparedMask:
        """What `forward` takes in a mask's place: `torch.compile(model, dynamic=False)(pair, prepared)` is one graph.

        Args:
            mask: as `sample_mask` makes it; best on the CPU, because it is read on the host.
            device: that of the pairs; None: the mask's.

        Raises:
            ValueError: it hides nothing, or not the same number of patches in every sample.
        """
        self._check_mask(mask)
        return self._lay_out(mask, lambda one: self.online.encoder.prepare(one, self.patch_size, device))

    def reconstruction_target(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch patches values"]:
        """What a reconstruction should equal: the frames' patches, each normalised if `norm_pix_loss`."""
        patches = losses.patchify(frames, self.patch_size)
        return losses.normalize_patches(patches) if self.norm_pix_loss else patches

    def total_loss(self, online_loss: Tensor, target_loss: Tensor, consistency_loss: Tensor) -> Tensor:
        """Eq. 3: `online + target + gamma * consistency`, of the losses that are switched on (Table 4d)."""
        total = torch.zeros_like(online_loss)
        for weight, loss in zip(self.loss_weights, (online_loss, target_loss, consistency_loss), strict=True):
            if weight:  # one that is switched off must not turn the sum into NaN
                total = total + weight * loss
        return total

    def update_target(self, momentum: float) -> None:
        """Move the target network: parameters averaged with `momentum`, buffers copied. Once per optimizer step."""
        ema.update(self.target, self.online, momentum)

    def weight_decay_exceptions(self) -> set[str]:
        """Small parameters under weight decay, for `optim.parameter_groups`: GRN's in the official preset."""
        return official.weight_decay_exceptions(self) if self.preset == "official" else set()

    @classmethod
    def from_official(cls, path: str | Path, mode: Literal["auto", "blocks", "masked"] = "auto") -> VideoMAC:
        """Read a checkpoint of the released code (`mac-*.pth`) into a model with `preset="official"`.

        Kind, depths and widths of the network are read from parameter names and shapes. A missing target network is a
        copy of the online one. The file's code objects, if any, are never run.

        Raises:
            UserError: not such a file, damaged, or a network that is neither their ConvNeXt nor their ResNet.
        """
        checkpoint = official_checkpoint.read(path)
        model = cls(**checkpoint.arguments, mode=mode)
        checkpoint.fill(model.online, model.target)
        return model

    @staticmethod
    def _lay_out(mask: Tensor, make: Callable[[Tensor], Layout]) -> PreparedMask:
        if mask.ndim == 3:
            layout = make(mask)
            return PreparedMask(layout, layout)
        return PreparedMask(make(mask[:, 0]), make(mask[:, 1]))

    def _check(self, pair: Tensor, mask: Tensor) -> None:
        if pair.ndim != 5 or tuple(pair.shape[1:3]) != (2, 3):
            raise ValueError(f"pair must be [batch, 2, 3, height, width], got {list(pair.shape)}")
        self._check_mask(mask)
        if len(mask) != len(pair):
            raise ValueError(f"{len(mask)} masks for {len(pair)} pairs")
        size = (mask.shape[-2] * self.patch_size, mask.shape[-1] * self.patch_size)
        if size != tuple(pair.shape[-2:]):
            raise ValueError(
                f"a mask of {mask.shape[-2]}x{mask.shape[-1]} patches of {self.patch_size} pixels does not fit frames "
                f"of {pair.shape[-2]}x{pair.shape[-1]}"
            )

    @staticmethod
    def _check_mask(mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim not in (3, 4) or (mask.ndim == 4 and mask.shape[1] != 2):
            raise ValueError(
                f"mask must be boolean, [batch, rows, columns] or [batch, 2, rows, columns], "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        if not mask.cpu().numpy().any():
            raise UserError("the mask hides nothing, so there is nothing to reconstruct: raise mask_ratio")


def _architecture(backbone: nn.Module) -> str:
    """The timm name of a module, if it came from timm."""
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    return str(cfg.get("architecture", type(backbone).__name__))


@torch.no_grad()
def feature_std(
    features: Float[Tensor, "batch channels height width"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, ""]:
    """Standard deviation of each channel over samples and visible cells, averaged over channels; near 0: collapse."""
    visible = ~upsample_mask(mask, features.shape[-2:])[:, None]
    values = torch.where(visible, features.float(), 0.0)
    count = visible.sum()
    mean = values.sum(dim=(0, 2, 3), keepdim=True) / count
    variance = torch.where(visible, values - mean, 0.0).square().sum(dim=(0, 2, 3)) / (count - 1).clamp(min=1)
    return variance.sqrt().mean()
