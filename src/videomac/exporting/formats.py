"""The formats: how each is written, and reloaded with its target runtime."""

from __future__ import annotations

import copy
import importlib.util
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import Conv2dSame
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.exporting.source import Source
from videomac.models.checkpoint import require_finite, save_backbone
from videomac.utils.io import atomic_write

WEIGHTS = {
    "timm": "model.safetensors",
    "state_dict": "state_dict.pth",
    "onnx": "model.onnx",
    "torch_export": "model.pt2",
}
"""Format -> its file."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class Features(nn.Module):
    """What ONNX and torch.export files compute: frames to the last feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """Timm's `forward_features` of ImageNet-normalised frames."""
        features: Tensor = self.backbone.forward_features(frames)  # type: ignore[operator]
        return features


class WholeNumberConv2dSame(nn.Conv2d):
    """timm's "same" convolution; its padding is reckoned in whole numbers, which a torch.export program can hold."""

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve; a kernel that is smaller than its stride is not for this class."""
        borders: list[int] = []
        for size, kernel, stride, dilation in zip(
            x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True
        ):
            total = dilation * (kernel - 1) - (size - 1) % stride
            borders = [total // 2, total - total // 2, *borders]
        return F.conv2d(F.pad(x, borders), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@torch.no_grad()
def write(format: str, source: Source, file: Path) -> float:
    """Write one format and open it again as a reader would.

    Returns:
        largest difference of the features from the network's, relative to the largest feature, on random frames of
        another batch size, height and width than were traced.

    Raises:
        UserError: the format cannot hold the network, or a weight is not finite.
    """
    require_finite(source.network.state_dict(), source.name)
    stride = stride_of(source.network)
    generator = torch.Generator().manual_seed(0)
    traced = torch.randn(2, 3, 3 * stride, 4 * stride, generator=generator)
    frames = torch.randn(3, 3, 5 * stride, 2 * stride, generator=generator)
    features = Features(source.network).eval()
    expected = features(frames)
    if format == "timm":
        save_backbone(source.network, file.parent, name=source.name, model_args=source.model_args)
        found = Features(timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval())(frames)
    elif format == "state_dict":
        with atomic_write(file) as temporary:
            torch.save({name: value.contiguous() for name, value in source.network.state_dict().items()}, temporary)
        plain = timm.create_model(source.name, num_classes=0, **source.model_args).eval()
        plain.load_state_dict(torch.load(file, weights_only=True))
        found = Features(plain)(frames)
    elif format == "torch_export":
        with atomic_write(file) as temporary:
            _write_program(_trace(features, traced, source.name), temporary, source.name)
        found = torch.export.load(file).module()(frames)
    else:
        with atomic_write(file) as temporary:
            _write_onnx(_trace(features, traced, source.name), temporary)
        found = _run_onnx(file, frames)
    return float((found - expected).abs().max() / expected.abs().max())


def _trace(features: Features, frames: Tensor, name: str) -> torch.export.ExportedProgram:
    """The network as a graph whose batch, height and width are free."""
    free = torch.export.Dim.DYNAMIC
    try:
        shapes = {"frames": {0: free, 2: free, 3: free}}
        return torch.export.export(_traceable(features), (frames,), dynamic_shapes=shapes)
    except Exception as error:  # torch.export raises whatever the network trips over
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be traced for every frame size ({reason}): take --format timm") from error


def _traceable(features: Features) -> Features:
    """A copy that computes the same in operations that every format has."""
    features = copy.deepcopy(features)
    for module in features.modules():
        if type(module) is Conv2dSame and all(k >= s for k, s in zip(module.kernel_size, module.stride, strict=True)):
            module.__class__ = WholeNumberConv2dSame  # type: ignore[assignment]
    return features


def _write_program(program: torch.export.ExportedProgram, file: Path, name: str) -> None:
    try:
        with file.open("wb") as stream:
            torch.export.save(program, stream)
    except OSError:
        raise
    except Exception as error:  # whatever the program's file cannot hold
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be written as a torch.export program ({reason}): take --format timm") from error


def _write_onnx(program: torch.export.ExportedProgram, file: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # among torch and onnxscript
        onnx_program = torch.onnx.export(program, input_names=["frames"], output_names=["features"], verbose=False)
    assert onnx_program is not None
    proto = onnx_program.model_proto
    _name_axes(proto)
    file.write_bytes(proto.SerializeToString())


def _name_axes(proto: Any) -> None:
    """Call the free axes batch, height and width instead of the tracer's s0, s1 and so on, wherever they appear."""
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    names = {axes[axis].dim_param: name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param"):
                axis.dim_param = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), axis.dim_param)


def _run_onnx(file: Path, frames: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    features: Tensor = torch.from_numpy(session.run(["features"], {"frames": frames.numpy()})[0])
    return features


def stride_of(network: Any) -> int:
    """Pixels per cell of the last feature map."""
    return int(network.feature_info[-1]["reduction"])


def require_packages(*names: str) -> None:
    """Refuse, in one sentence, if an optional package is missing.

    Raises:
        UserError: names the packages, and how to install them.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install '.[export]' in the checkout")
