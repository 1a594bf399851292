"""What a user may name as a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from videomac.errors import UserError

RAW_PIXELS = "raw-pixels"


def load(
    backbone: str | Path,
    *,
    weights: Path | None = None,
    pretrained: bool | None = None,
    network: Literal["online", "target"] = "online",
    seed: int = 0,
) -> tuple[nn.Module | str, str]:
    """A backbone from what a user names.

    Args:
        backbone: timm name; folder or file of ours or of the authors; or "raw-pixels".
        weights: state dict for a timm name.
        pretrained: download timm's weights; None: if the name has a tag.
        network: which network of a pre-training run.
        seed: of random weights.

    Returns:
        The network, and where its weights are from.

    Raises:
        UserError: nothing of that name, or weights that do not fit.
    """
    from videomac.models.backbones import create_backbone
    from videomac.models.checkpoint import load_backbone

    name = str(backbone)
    if name == RAW_PIXELS:
        return RAW_PIXELS, "none"
    path = Path(name)
    if path.is_file() and path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        path = path.parent
    if path.exists():
        return load_backbone(path, which=network), f"{name} ({network})"
    if path.suffix in (".ckpt", ".pth", ".pt", ".safetensors") or name.startswith(("/", "./", "../")):
        raise UserError(f"{name} does not exist: check the path, or name a timm network")
    download = pretrained if pretrained is not None else "." in name or ":" in name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = create_backbone(name, pretrained=download)
    if weights is None:
        return model, "timm" if download else f"random (seed {seed})"
    _load_state(model, weights, name)
    return model, str(weights)


def _load_state(model: nn.Module, path: Path, name: str) -> None:
    """Load a plain state dict, without classifier, into a timm network."""
    from videomac.utils.io import read_safetensors, read_torch

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
