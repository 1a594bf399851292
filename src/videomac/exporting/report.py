"""What an export did: every tensor of the source, as `export.json` states it and as a terminal shows it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videomac.exporting.config import ExportConfig
from videomac.exporting.formats import Features, stride_of
from videomac.exporting.source import Source
from videomac.utils.run_dir import table

SHOWN_NAMES = 1


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
        stride = stride_of(network)
        total = Features(network)(torch.zeros(1, 3, 2 * stride, 2 * stride)).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, flag in zip(parameters, before, strict=True):
            parameter.requires_grad_(flag)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is None}


def format_report(report: Mapping[str, Any], out: Path) -> str:
    """The report as text for a terminal."""
    exported = report["exported"]
    arguments = [f"{key}={value}" for key, value in report["model_args"].items()]
    size = f"{exported['count']} tensors, {exported['values'] / 1e6:.2f}M values"
    rows = [
        ("source", f"{report['source']} ({report['kind']}), {report['network']} network"),
        ("backbone", ", ".join([report["backbone"], *arguments])),
        ("exported", f"{size} ({_renamed(exported['names'])})"),
    ]
    for reason, part in report["left_out"].items():
        rows.append(("left out", f"{part['count']} tensors: {reason} ({_some(part['names'])})"))
    if report["untrained"]:
        rows.append(("untrained", f"{', '.join(report['untrained'])}: the features do not use them"))
    if report["initial_values"]:
        rows.append(("filled in", f"{_some(report['initial_values'])}: not in the source, at initial values"))
    rows += [
        (
            "checked",
            f"reloaded with its target runtime: features differ by {report['largest_relative_difference']:.1e} at most",
        ),
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
