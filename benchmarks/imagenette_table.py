"""A backbone from scratch against the same after pre-training, on a folder of images: the table of docs/results.md.

    python benchmarks/imagenette_table.py --data IMAGES --pretrained RUN --out OUT [--epochs 8]

Linear probe and k-NN of frozen features, and fine-tuning with equal settings and budget, with three seeds each.
What is finished in OUT is kept, an interrupted fine-tuning is continued. The table is written to OUT/table.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import videomac
from videomac.models.checkpoint import last_checkpoint
from videomac.utils.io import read_torch

COLUMNS = ("linear_top1", "linear_top5", "knn_top1", "top1")
HEADS = ("linear, top-1", "linear, top-5", "k-NN, top-1", "fine-tuned, top-1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, required=True, help="run folder or checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--probe_size", type=int, default=96, help="pixels, for the frozen features")
    parser.add_argument("--image_size", type=int, default=64, help="pixels, for fine-tuning")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    checkpoint = read_torch(
        last_checkpoint(arguments.pretrained) if arguments.pretrained.is_dir() else arguments.pretrained
    )
    backbones = {"random weights": checkpoint["videomac"]["backbone"], "pre-trained": str(arguments.pretrained)}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in backbones}
    for judge in (probe, finetune):  # what is quick first
        for seed in range(arguments.seeds):
            for name, backbone in backbones.items():
                out = arguments.out / f"{judge.__name__}-{name.replace(' ', '-')}-{seed}"
                numbers = json.loads(path.read_text()) if (path := out / "metrics.json").is_file() else None
                if numbers is None:
                    numbers = judge(arguments, backbone, seed, out)
                if judge is probe:
                    results[name].append(dict(numbers))
                else:
                    results[name][seed] |= {"top1": numbers["top1"]}
            write(arguments, checkpoint, results)
    print("\n" + (arguments.out / "table.md").read_text())


def probe(arguments: argparse.Namespace, backbone: str, seed: int, out: Path) -> dict[str, Any]:
    return videomac.probe(
        data=arguments.data,
        backbone=backbone,
        out=out,
        image_size=arguments.probe_size,
        workers=arguments.workers,
        seed=seed,
        overwrite=True,
    )


def finetune(arguments: argparse.Namespace, backbone: str, seed: int, out: Path) -> dict[str, Any]:
    resume = (out / "checkpoints" / "last.ckpt").is_file()
    return videomac.finetune(
        data=arguments.data,
        backbone=backbone,
        out=out,
        image_size=arguments.image_size,
        crop_scale=(0.35, 1.0),
        auto_augment=None,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        epochs=arguments.epochs,
        warmup_epochs=arguments.epochs / 10,
        global_batch_size=32,
        base_lr=8e-3,
        layer_decay=1.0,  # which suits random weights better than a small one
        ema_decay=0.0,
        workers=arguments.workers,
        seed=seed,
        resume=resume,
        overwrite=not resume,
        trainer={"accelerator": "cpu"},
    )


def write(arguments: argparse.Namespace, checkpoint: Any, results: dict[str, list[dict[str, Any]]]) -> None:
    """Write the table of what is finished."""
    name = checkpoint["videomac"]["backbone"]
    lines = [f"| `{name}` | {' | '.join(HEADS)} |", "|---" * (len(HEADS) + 1) + "|"]
    for row, runs in results.items():
        cells = [spread([100 * run[column] for run in runs if column in run]) for column in COLUMNS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    steps = checkpoint["global_step"]
    lines.append(f"\nIn %, mean ± standard deviation over {arguments.seeds} seeds; pre-trained for {steps} steps.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


if __name__ == "__main__":
    main()
