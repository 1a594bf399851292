"""Weights in and out: runs, the authors' checkpoints, and folders that `timm.create_model("local-dir:...")` opens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from videomac.errors import UserError
from videomac.models import official, official_checkpoint
from videomac.models.backbones import create_backbone, finer_stride
from videomac.models.encoder import SparseEncoder
from videomac.models.videomac import VideoMAC
from videomac.utils.checkpoint_files import LAST, PREVIOUS, read_checkpoint
from videomac.utils.io import atomic_write, read_safetensors, read_torch
from videomac.utils.reading import reading
from videomac.utils.seeding import seeded


def save_backbone(
    model: VideoMAC | nn.Module,
    folder: str | Path,
    *,
    name: str,
    model_args: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write `folder/model.safetensors` and `folder/config.json`, which timm opens.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` then gives the network with these weights (without
    `pretrained=True` timm gives random ones, silently), and they load strictly into
    `timm.create_model(name, num_classes=0)`.

    Args:
        model: the online network of a `VideoMAC` is exported; else a `SparseEncoder` or a timm network.
        folder: made if missing; each file is replaced at once.
        name: timm's name of the network.
        model_args: timm's arguments beyond the name, such as `depths`; None: those that a `VideoMAC` was built with.
            The `output_stride` is that of the network in any case.

    Returns:
        Names of tensors that timm's network has no place for and that were left out: none, except the stage norms of
        a ConvNeXt with `preset="official"`.

    Raises:
        ValueError: the weights do not fit the network `name`.
        UserError: a weight is not finite; nothing is written then.
    """
    if isinstance(model, VideoMAC):
        model_args = model.arguments["backbone_args"] if model_args is None else model_args
        model = model.online.encoder
    if isinstance(model, SparseEncoder):
        model = model.backbone
    model_args = _architecture_args(model_args or {})
    with seeded(0):  # not on the meta device, where older versions of timm and PyTorch cannot build every network
        plain: Any = create_backbone(name, **model_args)
        # What a name with a colon points to has arguments of its own.
        usual = create_backbone(plain.pretrained_cfg["architecture"], **model_args) if ":" in name else plain
    state = model.state_dict()
    left_out = [key for key in state if key.startswith("stage_norms.")]
    state = {key: value.detach().cpu().contiguous() for key, value in state.items() if key not in left_out}
    if problem := mismatch(plain, state):
        raise ValueError(f"these weights are not those of {name}: {problem}")
    model_args = {**model_args, **finer_stride(model, usual)}
    require_finite(state, name)

    folder = Path(folder)
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    with atomic_write(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(_timm_config(plain, model_args), indent=2) + "\n", encoding="utf-8")
    return left_out


def load_backbone(path: str | Path, which: Literal["online", "target"] = "online", **timm_kwargs: Any) -> nn.Module:
    """The pre-trained backbone as a plain timm module without classifier, in eval mode.

    Args:
        path: a run's folder (its last checkpoint), a checkpoint of ours (`.ckpt`) or of the authors (`.pth`), or an
            exported folder.
        which: the online network, or its moving average; an exported folder holds the online network only.
        **timm_kwargs: further arguments of timm that leave the weights' shapes alone, such as `drop_path_rate`.

    Returns:
        timm's own class, ready for dense frames; for a ConvNeXt of `preset="official"` its subclass
        `official.StageNormConvNeXt`, which keeps the additional norms.

    Raises:
        UserError: nothing of that kind at `path`, a damaged file, or weights of another network.
    """
    if which not in ("online", "target"):
        raise ValueError(f'which must be "online" or "target", got {which!r}')
    path = Path(path)
    if (path / "config.json").is_file():
        if which == "target":
            raise UserError(f"{path} is an exported backbone, which holds no target network: name the run's folder")
        with reading(path):
            return _load_exported(path, timm_kwargs)
    return plain_backbone(load_videomac(path), which, **timm_kwargs)


def plain_backbone(model: VideoMAC, which: Literal["online", "target"] = "online", **timm_kwargs: Any) -> nn.Module:
    """A copy of a model's backbone as a plain timm module without classifier, on the CPU and in eval mode.

    Args:
        model: it is not touched.
        which: the online network, or its moving average.
        **timm_kwargs: as in `load_backbone`.

    Returns:
        What `load_backbone` returns of a checkpoint of the model.
    """
    network = model.online if which == "online" else model.target
    model_args = _architecture_args(model.arguments["backbone_args"])
    backbone = create_backbone(model.arguments["backbone"], **{**model_args, **timm_kwargs})
    if model.preset == "official":
        backbone = official.add_stage_norms(backbone)
    backbone.load_state_dict(network.encoder.backbone.state_dict())
    return _with_our_pixels(backbone).eval()


def load_videomac(path: str | Path) -> VideoMAC:
    """The whole model, both networks and decoders, from a run's folder, a `.ckpt` of ours or the authors' `.pth`.

    Raises:
        UserError: nothing of that kind at `path`, a damaged file, or weights that do not fit the settings beside them.
    """
    path = Path(path)
    path, checkpoint = open_checkpoint(path)
    if official_checkpoint.is_checkpoint(checkpoint):
        return VideoMAC.from_official(path)
    if not isinstance(checkpoint, Mapping) or not {"videomac", "state_dict"} <= checkpoint.keys():
        raise UserError(
            f"{path} is no VideoMAC checkpoint: name a run's folder, a .ckpt file from its checkpoints/, "
            "or a checkpoint of the authors' code"
        )
    with reading(path):
        return _load_ours(path, checkpoint)


def _load_ours(path: Path, checkpoint: Mapping[str, Any]) -> VideoMAC:
    arguments = {key: value for key, value in checkpoint["videomac"].items() if key != "image_size"}
    arguments["backbone_args"] = _architecture_args(arguments.get("backbone_args", {}))
    try:
        model = VideoMAC(**arguments)
    except TypeError as error:
        raise UserError(f"{path} was written by another version of videomac: {error}") from None
    state = {key.removeprefix("model."): value for key, value in checkpoint["state_dict"].items()}
    if problem := mismatch(model, state):
        raise UserError(f"{path} does not fit its own settings ({arguments['backbone']}): {problem}")
    model.load_state_dict(state)
    return model


def require_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse to export weights of which one is NaN or infinite.

    Raises:
        UserError: names the first such tensor.
    """
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{key} of {name} is not finite, so nothing is written: export an earlier checkpoint")


def last_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run that can be read; see `open_checkpoint`."""
    return open_checkpoint(run)[0]


def open_checkpoint(path: Path) -> tuple[Path, Any]:
    """Read a checkpoint, or the newest of a run's folder.

    That is `last.ckpt` in `checkpoints/` or, with a warning where it is damaged, `previous.ckpt`; where there is
    neither, the one with the highest numbers in its name.

    Returns:
        the file, and what it holds.

    Raises:
        UserError: the folder holds no run, or the file cannot be read.
    """
    if not path.is_dir():
        return path, read_torch(path)
    folder = path / "checkpoints"
    if (folder / LAST).exists() or (folder / PREVIOUS).exists():
        return read_checkpoint(folder)
    found = list(folder.glob("*.ckpt"))
    if not found:
        raise UserError(f"{path} is neither a run's folder (no checkpoints/*.ckpt) nor an exported backbone")
    newest = max(found, key=lambda file: [int(n) for n in re.findall(r"\d+", file.stem)])
    return newest, read_torch(newest)


def _load_exported(folder: Path, timm_kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name, model_args = config["architecture"], config.get("model_args", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / 'config.json'} is not a timm configuration: export the backbone again") from None
    backbone = create_backbone(name, **{**model_args, **timm_kwargs})
    state = read_safetensors(folder / "model.safetensors")
    if problem := mismatch(backbone, state):
        raise UserError(f"{folder / 'model.safetensors'} does not hold a {name}: {problem}")
    backbone.load_state_dict(state)
    return _with_our_pixels(backbone).eval()


def _with_our_pixels(backbone: nn.Module) -> nn.Module:
    """Say where timm says it that the network was pre-trained on ImageNet-normalised frames, whatever timm's were."""
    timm_network: Any = backbone
    timm_network.pretrained_cfg = {**timm_network.pretrained_cfg, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return backbone


def _architecture_args(backbone_args: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the arguments that make timm fetch weights, which would be overwritten anyway."""
    return {key: value for key, value in backbone_args.items() if key not in ("pretrained", "checkpoint_path")}


def mismatch(module: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """The first differences between the tensors that `module` has and those of `state`, in words."""
    own = module.state_dict()
    found = []
    for key, value in own.items():
        if key not in state:
            found.append(f"{key} is missing")
        elif state[key].shape != value.shape:
            found.append(f"{key} has shape {list(state[key].shape)} instead of {list(value.shape)}")
    found += [f"{key} is not part of it" for key in state if key not in own]
    if not found:
        return None
    more = f", and {len(found) - 3} more like these" if len(found) > 3 else ""
    return "; ".join(found[:3]) + more


def _timm_config(plain: nn.Module, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """config.json in timm's format; mean and standard deviation are those of pre-training, not the network's own."""
    cfg: Any = plain.pretrained_cfg
    kept = ("input_size", "pool_size", "crop_pct", "interpolation", "first_conv", "classifier")
    return {
        "architecture": cfg["architecture"],  # without the tag of pre-trained weights that a name may carry
        "num_classes": 0,
        "num_features": plain.num_features,
        "pretrained_cfg": {
            "tag": "videomac",
            "custom_load": False,
            "fixed_input_size": False,
            "num_classes": 0,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            **{key: cfg[key] for key in kept if key in cfg},
        },
        "model_args": dict(model_args),
    }


DEFAULT_SHORT_SIDE = 224


def trained_size(checkpoint: Path) -> int:
    """Return the short side that a run was trained with; the authors' checkpoints do not tell, theirs is 224."""
    _, state = open_checkpoint(checkpoint)
    return int(min(state.get("videomac", {}).get("image_size", [DEFAULT_SHORT_SIDE])))
