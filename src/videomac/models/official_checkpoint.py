"""The layout of the authors' checkpoints: from a file to the arguments and state dicts of our model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videomac.errors import UserError
from videomac.models.autoencoder import MaskedAutoencoder
from videomac.utils.io import read_torch


def is_checkpoint(checkpoint: object) -> bool:
    """Whether what a file holds is laid out like the authors' checkpoints."""
    return isinstance(checkpoint, Mapping) and not checkpoint.keys().isdisjoint({"online_without_ddp", "model_online"})


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What a file in the authors' layout holds.

    Attributes:
        path: the file.
        arguments: what `VideoMAC` must be built with, all but its mode.
        online: parameters of the online network, in the authors' names and shapes.
        target: those of the target network, a copy of the online one's where the file has none.
    """

    path: Path
    arguments: dict[str, Any]
    online: Mapping[str, Tensor]
    target: Mapping[str, Tensor]

    def fill(self, online: MaskedAutoencoder, target: MaskedAutoencoder) -> None:
        """Copy the parameters into networks built with `arguments`.

        Raises:
            UserError: a parameter has no place, or a place no parameter.
        """
        _load_network(online, self.online, self.path)
        _load_network(target, self.target, self.path)


def read(path: str | Path) -> OfficialCheckpoint:
    """Read a checkpoint in the authors' layout.

    Raises:
        UserError: not such a file, damaged, or a network that is neither their ConvNeXt nor their ResNet.
    """
    path = Path(path)
    checkpoint = read_torch(path)
    if not is_checkpoint(checkpoint):
        raise UserError(
            f"{path} is not a VideoMAC checkpoint of the authors' layout: it has neither "
            "'online_without_ddp' nor 'model_online'"
        )
    online, target = _network_state(checkpoint, "online"), _network_state(checkpoint, "target")
    assert online is not None
    try:
        backbone, backbone_args = _describe_backbone(online)
        arguments = {
            "backbone": backbone,
            "backbone_args": backbone_args,
            "preset": "official",
            "patch_size": round((online["pred.bias"].numel() / 3) ** 0.5),
            "decoder_width": online["mask_token"].numel(),
            "decoder_depth": _count(online, r"decoder\.(\d+)\."),
        }
    except (KeyError, AttributeError) as error:
        raise UserError(f"{path}: the network cannot be read from its parameters, {error} is missing") from None
    return OfficialCheckpoint(path, arguments, online, online if target is None else target)


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
