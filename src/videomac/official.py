"""`preset="official"`: what the released VideoMAC code does and the paper does not say.

Everything that the paper's own path does not need is here: the LayerNorm after every ConvNeXt stage, GRN over the whole
batch, the initialisation, the parameters that are decayed although they are small, and the layout of the authors'
checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from timm.layers import LayerNorm2d
from timm.layers.grn import GlobalResponseNorm
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.files import read_torch
from videomac.sparse import Blocks, MaskedCanvas
from videomac.sparse.convert import restore
from videomac.sparse.layers import BLOCK_AWARE, BlockAware

if TYPE_CHECKING:
    from videomac.model import MaskedAutoencoder, VideoMAC


class BatchResponseNorm(GlobalResponseNorm):
    """GRN whose L2 norm runs over all positions of all samples, not of each sample on its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[batch, height, width, channels]` (or channels first, as the parent was told)."""
        norm = x.norm(p=2, dim=(0, *self.spatial_dim), keepdim=True)
        response = norm / (norm.mean(dim=self.channel_dim, keepdim=True) + self.eps)
        return x + torch.addcmul(self.bias.view(self.wb_shape), self.weight.view(self.wb_shape), x * response)


class VisibleBatchResponseNorm(BlockAware, BatchResponseNorm):
    """`BatchResponseNorm` under a mask: over all visible positions."""

    kind = "batch statistics over visible positions"

    def on_blocks(self, x: Tensor, layout: Blocks) -> Tensor:
        """The blocks are all visible positions, and nothing else."""
        return self.parent_forward(x)

    def on_canvas(self, x: Tensor, layout: MaskedCanvas) -> Tensor:
        """A hidden cell of 0 adds nothing to the norm."""
        if self.channel_dim == 1:
            return self.parent_forward(layout.hide(x))
        return self.parent_forward(layout.hide(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


BLOCK_AWARE[BatchResponseNorm] = VisibleBatchResponseNorm


class StageNormConvNeXt(ConvNeXt):
    """timm's ConvNeXt with one more LayerNorm after every stage, in the main path (`stage_norms`)."""

    stage_norms: nn.ModuleList

    def forward_features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """What timm's `forward_features` does, with the stage norms."""
        x = self.stem(x)
        for stage, norm in zip(self.stages, self.stage_norms, strict=True):
            x = norm(stage(x))
        features: Tensor = self.norm_pre(x)
        return features


def add_stage_norms(backbone: nn.Module) -> nn.Module:
    """Turn a timm ConvNeXt, in place, into a `StageNormConvNeXt`; other networks are left alone."""
    if isinstance(backbone, ConvNeXt) and not isinstance(backbone, StageNormConvNeXt):
        stages: list[dict[str, Any]] = backbone.feature_info
        backbone.stage_norms = nn.ModuleList(LayerNorm2d(stage["num_chs"]) for stage in stages)
        backbone.__class__ = StageNormConvNeXt
    return backbone


def normalize_over_batch(backbone: nn.Module) -> nn.Module:
    """Turn every GRN of a timm network, in place, into a `BatchResponseNorm`."""
    for module in restore(backbone).modules():
        if type(module) is GlobalResponseNorm:
            module.__class__ = BatchResponseNorm
    return backbone


def initialize(network: MaskedAutoencoder) -> None:
    """Draw the parameters of a new network as the released code does.

    Truncated normal with standard deviation 1 (not 0.02) for depthwise kernels, for every convolution that is dense
    there (stem and decoder) and for the encoder's linear layers; 0.02 for the other convolutions of the encoder and
    for the mask token; the decoder's linear layers keep PyTorch's default.
    """
    backbone = network.encoder.backbone
    stem = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            narrow = isinstance(module, nn.Conv2d) and module.groups == 1 and module is not stem
            _truncated_normal(module, std=0.02 if narrow else 1.0)
    for module in network.decoder.modules():
        if isinstance(module, nn.Conv2d):
            _truncated_normal(module, std=1.0)
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
    nn.init.normal_(network.decoder.mask_token, std=0.02)


def _truncated_normal(module: nn.Conv2d | nn.Linear, std: float) -> None:
    nn.init.trunc_normal_(module.weight, std=std)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def also_decayed(model: nn.Module) -> set[str]:
    """Small parameters that the released code decays: GRN's, which are 1 x C there."""
    return {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, GlobalResponseNorm)
        for name, _ in module.named_parameters()
    }


def is_checkpoint(checkpoint: object) -> bool:
    """Whether what a file holds is laid out like the authors' checkpoints."""
    return isinstance(checkpoint, Mapping) and not checkpoint.keys().isdisjoint({"online_without_ddp", "model_online"})


def load(path: str | Path, cls: type[VideoMAC], **settings: Any) -> VideoMAC:
    """Build the model of a checkpoint in the authors' layout; see `VideoMAC.from_official`."""
    path = Path(path)
    return build(read_torch(path), path, cls, **settings)


def build(checkpoint: Any, path: Path, cls: type[VideoMAC], **settings: Any) -> VideoMAC:
    """`load` for a file that has been read."""
    if not is_checkpoint(checkpoint):
        raise UserError(
            f"{path} is not a VideoMAC checkpoint of the authors' layout: it has neither "
            "'online_without_ddp' nor 'model_online'"
        )
    online, target = _network_state(checkpoint, "online"), _network_state(checkpoint, "target")
    assert online is not None
    try:
        backbone, backbone_args = _describe_backbone(online)
        model = cls(
            backbone,
            backbone_args=backbone_args,
            preset="official",
            patch_size=round((online["pred.bias"].numel() / 3) ** 0.5),
            decoder_width=online["mask_token"].numel(),
            decoder_depth=_count(online, r"decoder\.(\d+)\."),
            **settings,
        )
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path}: the network cannot be read from its parameters, {error} is missing") from None
    _load_network(model.online, online, path)
    _load_network(model.target, online if target is None else target, path)
    return model


def prefix(checkpoint: Mapping[str, Any], which: str) -> str | None:
    """What the path of every tensor of one network begins with, in a checkpoint of the authors; None: not there."""
    return next((f"{key}." for key in (f"{which}_without_ddp", f"model_{which}") if key in checkpoint), None)


def our_name(official_name: str) -> str:
    """Our name of one of the authors' parameters, both within one network."""
    for pattern, replacement in _NAMES:
        official_name = re.sub(pattern, replacement, official_name)
    return official_name


def _network_state(checkpoint: Mapping[str, Any], which: str) -> dict[str, Tensor] | None:
    key = prefix(checkpoint, which)
    if key is None:
        return None
    return {name.removeprefix("module."): value for name, value in checkpoint[key[:-1]].items()}


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _describe_backbone(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """The encoder's timm name and arguments, from parameter names and shapes alone."""
    if "encoder.stem.0.weight" in state:
        kind = "resnet50_patchify" if "encoder.layer1.0.conv3.kernel" in state else "resnet18_patchify"
        layers = [_count(state, rf"encoder\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
        channels = [state[f"encoder.layer{stage}.0.conv1.kernel"].shape[-1] for stage in (1, 2, 3, 4)]
        return kind, {"layers": layers, "channels": channels}
    dims = [state["encoder.downsample_layers.0.0.weight"].shape[0]]
    dims += [state[f"encoder.downsample_layers.{stage}.1.kernel"].shape[-1] for stage in (1, 2, 3)]
    depths = [_count(state, rf"encoder\.stages\.{stage}\.(\d+)\.") for stage in range(4)]
    is_v2 = any(name.startswith("encoder.") and ".grn." in name for name in state)
    return "convnextv2_tiny" if is_v2 else "convnext_tiny_no_layer_scale", {"depths": depths, "dims": dims}


# From the authors' parameter names to ours, applied in order.
_NAMES = [
    (r"\.(ln|linear)\.", "."),
    (r"\.kernel$", ".weight"),
    (r"^mask_token", "decoder.mask_token"),
    (r"^decoder\.(\d)", r"decoder.blocks.\1"),
    (r"^proj\.", "decoder.projection."),
    (r"^pred\.", "decoder.head."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    # ResNet
    (r"^encoder\.stem\.0\.", "encoder.conv1."),
    (r"^encoder\.stem\.1\.", "encoder.bn1."),
    (r"^(encoder\.layer.*)\.norm([123])\.", r"\1.bn\2."),
    # ConvNeXt
    (r"^(encoder\.stages\.\d+)\.(\d)", r"\1.blocks.\2"),
    (r"^encoder\.downsample_layers\.0\.", "encoder.stem."),
    (r"^encoder\.downsample_layers\.(\d)\.", r"encoder.stages.\1.downsample."),
    (r"^encoder\.norm(\d)\.", r"encoder.stage_norms.\1."),
    (r"^encoder\.", "encoder.backbone."),
]


def _load_network(network: MaskedAutoencoder, state: Mapping[str, Tensor], path: Path) -> None:
    """Copy parameters given in the authors' names and shapes."""
    parameters = dict(network.named_parameters())
    # What forward_features does not reach (ConvNeXt's head norm) is frozen in ours and missing in theirs.
    missing = {name for name in parameters if "backbone.head." not in name}
    for official_name, value in state.items():
        name = our_name(official_name)
        if name not in parameters or value.numel() != parameters[name].numel():
            raise UserError(f"{path}: {official_name} of shape {tuple(value.shape)} has no place in the network")
        parameter = parameters[name]
        if official_name.endswith(".kernel"):
            # MinkowskiEngine: [positions, inputs, outputs], the first spatial axis running fastest; 1x1 and
            # depthwise kernels lack an axis of length 1.
            outputs, inputs, height, width = parameter.shape
            value = value.reshape(width, height, inputs, outputs).permute(3, 2, 1, 0)
        with torch.no_grad():
            parameter.copy_(value.reshape(parameter.shape))
        missing.discard(name)
    if missing:
        raise UserError(f"{path}: nothing in the file fills {min(missing)} (and {len(missing) - 1} more)")
