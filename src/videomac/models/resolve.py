"""What a user may name as a backbone, for every command that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import load_backbone
from videomac.utils.io import read_safetensors, read_torch

SUFFIXES = (".ckpt", ".pth", ".pt", ".safetensors")


def resolve(
    backbone: str | Path,
    *,
    pretrained: bool | None = None,
    network: Literal["online", "target"] = "online",
    weights: Path | None = None,
    seed: int = 0,
    image_size: int | None = None,
    **timm_kwargs: Any,
) -> tuple[nn.Module, str]:
    """Make the backbone that a user names.

    Args:
        backbone: folder of a run, checkpoint of ours or of the authors, exported folder or its `model.safetensors`;
            else a name that timm knows: `resnet50`, `resnet50.a1_in1k` with a tag, `local-dir:FOLDER`, `hf-hub:NAME`.
        pretrained: take timm's weights for a timm name; None: if it has a tag. What a name with a colon points to is
            nothing without its weights, which are always taken.
        network: which network of a pre-training run.
        weights: state dict for a timm name.
        seed: of random weights. PyTorch's global generator is set to it and not put back, so that what the caller draws
            next, such as a classifier, depends on it too: call this within `torch.random.fork_rng`.
        image_size: side of the images in pixels, for timm's networks that are built for one size; None: timm's own.
        **timm_kwargs: further arguments of timm, such as `drop_path_rate`.

    Returns:
        The network without classifier, and where its weights are from: "PATH (online)", "timm", "random (seed 0)" or
        the file of `weights`.

    Raises:
        UserError: nothing of that name, weights that do not fit, or a network that does not take these arguments.
    """
    name, path = str(backbone), find_weights(backbone)
    if path is not None and weights is not None:
        raise UserError(f"{name} brings its own weights: leave --weights out, or name a timm network")
    torch.manual_seed(seed)
    try:
        if path is not None:
            return load_backbone(path, network, **timm_kwargs), f"{name} ({network})"
        download = ":" in name or ("." in name if pretrained is None else pretrained)
        if image_size is not None and _has_fixed_size(name):
            timm_kwargs["img_size"] = image_size
        model = create_backbone(name, pretrained=download, **timm_kwargs)
    except TypeError as error:
        if not timm_kwargs:
            raise
        raise UserError(f"backbone {name} does not take {', '.join(timm_kwargs)}: {error}") from error
    if weights is not None:
        _load_state(model, weights, name)
        return model, str(weights)
    return model, "timm" if download else f"random (seed {seed})"


def find_weights(backbone: str | Path) -> Path | None:
    """The folder or file of weights that a user names; None if it can only be timm's name of a network.

    Returns:
        What `videomac.load_backbone` takes: an exported folder in place of its `model.safetensors`.

    Raises:
        UserError: a path that does not exist, or a safetensors file that does not lie in an exported folder.
    """
    name, path = str(backbone), Path(backbone)
    if path.suffix == ".safetensors" and path.is_file():
        if path.name != "model.safetensors" or not (path.parent / "config.json").is_file():
            raise UserError(
                f"{name} is not the model.safetensors of an exported folder, whose config.json says which network it "
                "is: name the run, and export it again if it is lost"
            )
        return path.parent
    if path.exists():
        return path
    if ":" not in name and ("/" in name or path.suffix in SUFFIXES):
        raise UserError(f"{name} does not exist: check the path, or name a timm network")
    return None


def _has_fixed_size(name: str) -> bool:
    """Whether timm builds this network for images of one size."""
    architecture = name.split(".")[0]
    cfg: Any = timm.get_pretrained_cfg(architecture) if timm.is_model(architecture) else None
    return bool(cfg and cfg.fixed_input_size)


def _load_state(model: nn.Module, path: Path, name: str) -> None:
    """Load a plain state dict, whose classifier is left out, into a timm network."""
    state = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise UserError(f"{path} holds no state dict: save torch.save(model.state_dict(), ...)")
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or wrong:
        reason = f"it has no {missing[0]}" if missing else f"{wrong[0]} has another shape"
        raise UserError(f"{path} does not fit {name}: {reason} ({len(missing)} missing, {len(wrong)} of another shape)")
    model.load_state_dict({key: state[key] for key in own})
