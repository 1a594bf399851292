"""`videomac export`: a pre-trained backbone as a file that other tools read, with a report of every tensor."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from videomac.config import save_config
from videomac.errors import UserError
from videomac.evaluate.compare import read_run
from videomac.exporting.config import ExportConfig
from videomac.exporting.model_card import find_training, model_card
from videomac.models import official_checkpoint
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import last_checkpoint, load_backbone, load_videomac, save_backbone
from videomac.models.resolve import find_weights
from videomac.utils.io import atomic_write, read_safetensors, read_torch
from videomac.utils.run_dir import prepare_out_dir, table

OWNED = (
    *("config.yaml", "export.json", "README.md", "config.json"),
    *("model.safetensors", "state_dict.pth", "model.onnx", "model.pt2"),
)
WEIGHTS = {
    "timm": "model.safetensors",
    "state_dict": "state_dict.pth",
    "onnx": "model.onnx",
    "torch_export": "model.pt2",
}
TOLERANCE = 1e-4
"""Largest difference between the features of the written file and of the network, relative to the largest feature."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SHOWN_NAMES = 1
ON_HUB = ["README.md", "export.json", "config.json", *WEIGHTS.values()]


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


class Features(nn.Module):
    """What ONNX and torch.export files compute: frames to the last feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """Timm's `forward_features` of ImageNet-normalised frames."""
        features: Tensor = self.backbone.forward_features(frames)  # type: ignore[operator]
        return features


def run(config: ExportConfig) -> dict[str, Any]:
    """Write the backbone, open the file again and compare, and report what was and was not taken over.

    Returns:
        what `export.json` holds.

    Raises:
        UserError: an unusable source, a missing package, an out folder in use, a network that the format cannot hold,
            or a hub that refuses.
    """
    if config.format == "onnx":
        require_packages(*ONNX_PACKAGES)
    source = read_source(config.source, config.which)
    if config.format in ("timm", "state_dict"):
        source = without_stage_norms(source)
    evaluations = [read_run(folder) for folder in config.evaluations or []]  # refused before anything is written
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    file = config.out / WEIGHTS[config.format]
    difference = write(config.format, source, file)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{file} gives features that differ by {difference:.1e} from those of {source.name}: do not use it, and "
            "take --format timm"
        )
    report = describe(config, source, file, difference)
    (config.out / "export.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    card = model_card(report, find_training(config.source), evaluations)
    (config.out / "README.md").write_text(card, encoding="utf-8")
    print(format_report(report, config.out))
    if config.push_to_hub is not None:
        print(f"pushed to {push(config.out, config.push_to_hub)}")
    return report


def read_source(named: Path, which: str) -> Source:
    """Open a run's folder, a checkpoint of ours or the authors', or an exported backbone, and account for its tensors.

    Raises:
        UserError: nothing of that kind, a damaged file, one with code in it, or weights of another network.
    """
    path = find_weights(named)
    if path is None:
        raise UserError(f"{named} is no folder or file: name a run's folder, a checkpoint or an exported backbone")
    network = load_backbone(path, which)  # type: ignore[arg-type]
    if (path / "config.json").is_file():
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
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
    for path in _tensor_names(checkpoint):
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


def _tensor_names(tree: Any, path: str = "") -> Iterator[str]:
    """Where the tensors of nested mappings and lists are, as dotted paths."""
    if isinstance(tree, Tensor):
        yield path[1:]
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _tensor_names(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(tree):
            yield from _tensor_names(value, f"{path}.{number}")


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


@torch.no_grad()
def write(format: str, source: Source, file: Path) -> float:
    """Write one format and open it again as a reader would.

    Returns:
        largest difference of the features from the network's, relative to the largest feature, on random frames of
        another batch size, height and width than were traced.

    Raises:
        UserError: the format cannot hold the network.
    """
    stride = _stride(source.network)
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
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            torch.export.save(_trace(features, traced, source.name), stream)
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
        return torch.export.export(features, (frames,), dynamic_shapes={"frames": {0: free, 2: free, 3: free}})
    except Exception as error:  # torch.export raises whatever the network trips over
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be traced for every frame size ({reason}): take --format timm") from error


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


def require_packages(*names: str) -> None:
    """Refuse, in one sentence, if an optional package is missing.

    Raises:
        UserError: names the packages, and how to install them.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f"--format onnx needs {', '.join(missing)}: pip install 'videomac[export]'")


def describe(config: ExportConfig, source: Source, file: Path, difference: float) -> dict[str, Any]:
    """Everything about an export that `export.json` states; every tensor of the source is in it exactly once."""
    state = source.network.state_dict()
    beside = _unused(source.network)
    unused = beside if config.format in ("onnx", "torch_export") else set()
    origin = {name: source.origin[name] for name in state if name in source.origin and name not in unused}
    left_out = dict(source.left_out)
    if unused:
        names = [source.origin[name] for name in state if name in unused and name in source.origin]
        left_out["not used by the features (classifier's side)"] = names
    return {
        "source": source.file.name,
        "kind": source.kind,
        "network": config.which,
        "backbone": source.name,
        "model_args": source.model_args,
        "format": config.format,
        "file": file.name,
        "bytes": file.stat().st_size,
        "exported": {"count": len(origin), "values": sum(state[n].numel() for n in origin), "names": origin},
        "untrained": [name for name in state if name in beside - unused],
        "initial_values": [name for name in state if name not in source.origin and name not in unused],
        "left_out": {reason: {"count": len(names), "names": names} for reason, names in left_out.items()},
        "largest_relative_difference": difference,
        "versions": {name: importlib.metadata.version(name) for name in ("videomac", "timm", "torch")},
    }


def _unused(network: nn.Module) -> set[str]:
    """Parameters on which `forward_features` does not depend, such as a norm in the classifier."""
    with torch.enable_grad():
        names, parameters = zip(*network.named_parameters(), strict=True)
        before = [parameter.requires_grad for parameter in parameters]
        for parameter in parameters:
            parameter.requires_grad_(True)
        stride = _stride(network)
        total = Features(network)(torch.zeros(1, 3, 2 * stride, 2 * stride)).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, flag in zip(parameters, before, strict=True):
            parameter.requires_grad_(flag)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is None}


def _stride(network: Any) -> int:
    return int(network.feature_info[-1]["reduction"])


def format_report(report: Mapping[str, Any], out: Path) -> str:
    """The report as text for a terminal."""
    exported = report["exported"]
    size = f"{exported['count']} tensors, {exported['values'] / 1e6:.2f}M values"
    rows = [
        ("source", f"{report['source']} ({report['kind']}), {report['network']} network"),
        ("backbone", report["backbone"]),
        ("exported", f"{size} ({_renamed(exported['names'])})"),
    ]
    for reason, part in report["left_out"].items():
        rows.append(("left out", f"{part['count']} tensors: {reason} ({_some(part['names'])})"))
    if report["untrained"]:
        rows.append(("untrained", f"{', '.join(report['untrained'])}: the features do not use them"))
    if report["initial_values"]:
        rows.append(("filled in", f"{_some(report['initial_values'])}: not in the source, at initial values"))
    rows += [
        ("checked", f"opened again: features differ by {report['largest_relative_difference']:.1e} at most"),
        ("written", f"{out / report['file']} ({report['bytes'] / 2**20:.1f} MiB), README.md, export.json"),
    ]
    return table(rows)


def _renamed(names: Mapping[str, str]) -> str:
    """How names in the file became names of the export, by an example of what was cut or changed."""
    changed = [(path, name) for name, path in names.items() if path != name]
    return f"{len(changed)} renamed, as {changed[0][0]} -> {changed[0][1]}" if changed else "names unchanged"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f", ... {more} more" if more > 0 else "")


def push(out: Path, repo: str) -> str:
    """Upload weights, model card and report to the Hugging Face hub; the repository is made if there is none.

    Args:
        out: folder of an export; its config.yaml, which names local paths, stays here.
        repo: "user/name".

    Returns:
        the address of the repository.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi(library_name="videomac")
    try:
        address = api.create_repo(repo, exist_ok=True)
        api.upload_folder(
            repo_id=address.repo_id, folder_path=out, allow_patterns=ON_HUB, commit_message="Export from videomac"
        )
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"could not push to {repo} ({reason}): the export itself is complete in {out}; log in with "
            "`hf auth login`, or check the name"
        ) from error
    return str(address)
