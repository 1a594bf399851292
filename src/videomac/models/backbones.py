"""Backbones: every timm name, and the four networks of the paper that timm does not have.

Importing this module registers them with timm, so that `timm.create_model("resnet50_patchify")` works too. They are
timm's own classes with other settings; none has pre-trained weights to download.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from huggingface_hub.errors import HfHubHTTPError
from timm.layers import LayerNorm2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from videomac.errors import UserError
from videomac.utils.parsing import close_names

SOURCES = ("hf-hub", "local-dir", "hf_hub")
"""What timm takes before a colon."""


def create_backbone(name: str, output_stride: int | None = None, **timm_kwargs: Any) -> nn.Module:
    """A timm network without its classifier: `timm.create_model(name, num_classes=0, **timm_kwargs)`.

    Args:
        name: timm's.
        output_stride: handed to timm unless None, because many networks do not take it.
        **timm_kwargs: timm's further arguments.

    Raises:
        UserError: timm knows no such network (the sentence offers the closest names), cannot get its weights, or does
            not build it with this `output_stride`.
    """
    architecture = name.split(".")[0]
    if ":" in name and name.partition(":")[0] not in SOURCES:
        raise UserError(f"unknown backbone {name!r}: before a colon stands one of {', '.join(SOURCES)}")
    if ":" not in name and not timm.is_model(architecture):
        close = close_names(architecture, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models() for the names."
        raise UserError(f"unknown backbone {name!r}: {hint}")
    if output_stride is not None:
        timm_kwargs["output_stride"] = output_stride
    try:
        backbone: nn.Module = timm.create_model(name, num_classes=0, **timm_kwargs)
    except (OSError, HfHubHTTPError, RuntimeError) as error:
        if not (timm_kwargs.get("pretrained") or ":" in name or "." in name):
            raise  # nothing was to be fetched or looked up: not the name's fault
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise UserError(
            f"timm cannot get the weights of {name} ({reason}): check the name and its tag, and the connection, or "
            "name a folder of weights"
        ) from error
    except (TypeError, AssertionError) as error:
        # Some networks do not take it; others assert, mostly without a word, that they can have it.
        if output_stride is None or (isinstance(error, TypeError) and "output_stride" not in str(error)):
            raise
        raise UserError(
            f"timm does not build {name} with output_stride {output_stride}: leave it out, or give 32, 16 or 8 to a "
            "ConvNeXt or ResNet"
        ) from error
    return backbone


def finer_stride(network: Any, plain: Any) -> dict[str, int]:
    """The `output_stride` that a network was built with, as an argument of timm; empty if it is as plain as the other.

    No weight's shape tells it, and timm before 1.0.31 does not write it beside the weights by itself.

    Args:
        network: of timm.
        plain: the same architecture, built without it.
    """
    own, other = (getattr(each, "feature_info", None) for each in (network, plain))
    if not own or not other or own[-1]["reduction"] == other[-1]["reduction"]:
        return {}
    return {"output_stride": int(own[-1]["reduction"])}


class PatchifyResNet(ResNet):
    """The ResNet that the paper's authors trained (their code, not the paper's text).

    A 4x4 convolution of stride 4 and a LayerNorm instead of the 7x7 stem and its max-pooling; LayerNorm over channels
    instead of BatchNorm, GELU instead of ReLU. Names are timm's (`conv1`, `bn1`, `layer1` ...).
    """

    def __init__(self, block: Any, layers: Sequence[int], **kwargs: Any) -> None:
        super().__init__(block, tuple(layers), norm_layer=LayerNorm2d, act_layer="gelu", zero_init_last=False, **kwargs)
        self.conv1 = nn.Conv2d(kwargs.get("in_chans", 3), 64, kernel_size=4, stride=4)  # type: ignore[assignment]
        self.act1 = nn.Identity()
        self.maxpool = nn.Identity()  # type: ignore[assignment]
        self.feature_info[0]["reduction"] = 4


class IsotropicConvNeXt(ConvNeXt):
    """A ConvNeXt that never changes its resolution: a patchify stem and one stage of equal blocks (Table 2)."""

    def __init__(self, depth: int, dim: int, patch_size: int = 16, **kwargs: Any) -> None:
        # timm always builds four stages; the last three, empty but for a down-sampling layer each, are cut off.
        super().__init__(depths=(depth, 0, 0, 0), dims=(dim,) * 4, patch_size=patch_size, **kwargs)
        self.stages = self.stages[:1]
        self.feature_info = self.feature_info[:1]


def _cfg(first_conv: str, classifier: str, pool_size: tuple[int, int] = (7, 7)) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": pool_size,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": first_conv,
        "classifier": classifier,
    }


# timm's register_model looks this name up in the module of the function that it decorates.
default_cfgs = generate_default_cfgs(
    {
        "resnet18_patchify.untrained": _cfg("conv1", "fc"),
        "resnet50_patchify.untrained": _cfg("conv1", "fc"),
        "convnextv2_small_isotropic.untrained": _cfg("stem.0", "head.fc", pool_size=(14, 14)),
        "convnext_tiny_no_layer_scale.untrained": _cfg("stem.0", "head.fc"),
    }
)


@register_model
def resnet18_patchify(pretrained: bool = False, **kwargs: Any) -> PatchifyResNet:
    """ResNet-18 with a 4x4 patchify stem, LayerNorm and GELU: 11.68M parameters, 1.71G multiply-adds."""
    settings = {"block": BasicBlock, "layers": (2, 2, 2, 2), **kwargs}
    return build_model_with_cfg(PatchifyResNet, "resnet18_patchify", pretrained, **settings)


@register_model
def resnet50_patchify(pretrained: bool = False, **kwargs: Any) -> PatchifyResNet:
    """ResNet-50 with a 4x4 patchify stem, LayerNorm and GELU: 25.55M parameters, 3.98G multiply-adds."""
    settings = {"block": Bottleneck, "layers": (3, 4, 6, 3), **kwargs}
    return build_model_with_cfg(PatchifyResNet, "resnet50_patchify", pretrained, **settings)


@register_model
def convnextv2_small_isotropic(pretrained: bool = False, **kwargs: Any) -> IsotropicConvNeXt:
    """Isotropic ConvNeXt V2-S: 16x16 patches, 18 blocks of 384 channels; 22.36M parameters, 4.29G multiply-adds."""
    settings = {"depth": 18, "dim": 384, "use_grn": True, "ls_init_value": None, **kwargs}
    features = {"out_indices": (0,), "flatten_sequential": True}
    return build_model_with_cfg(
        IsotropicConvNeXt, "convnextv2_small_isotropic", pretrained, feature_cfg=features, **settings
    )


@register_model
def convnext_tiny_no_layer_scale(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """ConvNeXt V1-T without layer scale, whose stock 1e-6 would silence every pre-trained block (Table 5)."""
    settings = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768), "ls_init_value": None, **kwargs}
    features = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}
    return build_model_with_cfg(ConvNeXt, "convnext_tiny_no_layer_scale", pretrained, feature_cfg=features, **settings)
