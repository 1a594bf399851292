"""The network to export, and where each of its tensors comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from videomac.errors import UserError
from videomac.models import official_checkpoint
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import last_checkpoint, load_backbone, load_videomac
from videomac.models.resolve import find_weights
from videomac.utils.io import read_safetensors, read_torch
from videomac.utils.reading import read_text, reading


@dataclass(frozen=True)
class Source:
    """The network to export, and where each of its tensors comes from."""

    file: Path
    kind: str
    network: nn.Module
    """In eval mode, for dense frames."""
    name: str
    model_args: dict[str, Any]
    origin: dict[str, str]
    """Name of a tensor of the network -> its name in the file; tensors that the file does not hold are missing."""
    left_out: dict[str, list[str]]
    """Why tensors of the file are not part of the network -> their names in the file."""


def read_source(named: Path, which: str) -> Source:
    """Open a run's folder, a checkpoint of ours or the authors', or an exported backbone, and account for its tensors.

    Raises:
        UserError: nothing of that kind, a damaged file, one with code in it, or weights of another network.
    """
    path = find_weights(named)
    if path is None:
        raise UserError(f"{named} is no folder or file: name a run's folder, a checkpoint or an exported backbone")
    with reading(path):
        return _read_source(path, which)


def _read_source(path: Path, which: str) -> Source:
    network = load_backbone(path, which)  # type: ignore[arg-type]
    if (path / "config.json").is_file():
        found = json.loads(read_text(path / "config.json"))
        names = {name: name for name in read_safetensors(path / "model.safetensors")}
        arguments = found.get("model_args", {})
        return Source(path / "model.safetensors", "export", network, found["architecture"], arguments, names, {})
    file = last_checkpoint(path) if path.is_dir() else path
    checkpoint, arguments = read_torch(file), load_videomac(file).arguments
    origin, left_out = account(checkpoint, which)
    kind = "checkpoint of the authors' code" if official_checkpoint.is_checkpoint(checkpoint) else "checkpoint"
    model_args = {k: v for k, v in arguments["backbone_args"].items() if k not in ("pretrained", "checkpoint_path")}
    return Source(file, kind, network, arguments["backbone"], model_args, origin, left_out)


def account(checkpoint: Mapping[str, Any], which: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Sort every tensor of a checkpoint, ours or the authors': into the backbone, or left out and why.

    Returns:
        name of each of the backbone's tensors -> its name in the file, and reason -> names in the file.
    """
    other = "target" if which == "online" else "online"
    theirs = official_checkpoint.is_checkpoint(checkpoint)
    if theirs:  # without a target network it is a copy of the online one
        own, others = official_checkpoint.prefix(checkpoint, which), official_checkpoint.prefix(checkpoint, other)
        own, others = (own, others) if own is not None else (others, None)
    else:
        own, others = f"state_dict.model.{which}.", f"state_dict.model.{other}."
    assert own is not None
    origin: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    for path in tensor_names(checkpoint):
        if path.startswith(own):
            name = path.removeprefix(own)
            name = official_checkpoint.our_name(name.removeprefix("module.")) if theirs else name
            if name.startswith("encoder.backbone."):
                origin[name.removeprefix("encoder.backbone.")] = path
                continue
            reason = "mask token" if name == "decoder.mask_token" else "decoder, which only pre-training needs"
        elif others is not None and path.startswith(others):
            reason = f"{other} network"
        else:
            reason = "state of the optimizer"
        left_out.setdefault(reason, []).append(path)
    return origin, left_out


def tensor_names(tree: Any, path: str = "") -> Iterator[str]:
    """Where the tensors of nested mappings and lists are, as dotted paths."""
    if isinstance(tree, Tensor):
        yield path[1:]
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensor_names(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from tensor_names(value, f"{path}.{number}")


def without_stage_norms(source: Source) -> Source:
    """The source as timm's own network, which has no place for the stage norms of the official preset."""
    state = source.network.state_dict()
    norms = [name for name in state if name.startswith("stage_norms.")]
    if not norms:
        return source
    plain = create_backbone(source.name, **source.model_args).eval()
    plain.load_state_dict({name: value for name, value in state.items() if name not in norms})
    reason = "stage norms of the official preset, for which timm has no place: features differ from pre-training's"
    return replace(
        source,
        network=plain,
        origin={name: path for name, path in source.origin.items() if name not in norms},
        left_out={reason: [source.origin[name] for name in norms], **source.left_out},
    )
