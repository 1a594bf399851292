"""Where the time of an encoder's forward and backward goes, by kind of operation; several recordings as one picture.

OMP_NUM_THREADS=1 python bench/where.py record --label "this version" --out after.json
python bench/where.py draw before.json after.json --out where.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import timm
import torch
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::cudnn_convolution"),
    "gathers, scatters, copies": (
        "aten::index_select", "aten::index", "aten::scatter_add_", "aten::index_add_", "aten::index_copy_",
        "aten::_embedding_bag_forward_only", "aten::copy_", "aten::_index_put_impl_", "aten::constant_pad_nd",
    ),
    "normalisation": (
        "aten::native_layer_norm", "aten::native_layer_norm_backward", "aten::native_batch_norm",
        "aten::native_batch_norm_backward", "aten::linalg_vector_norm",
    ),
    "elementwise and sums": (),
}  # fmt: skip


def record(backbone: str, batch: int, rounds: int) -> dict[str, float]:
    """Seconds of one forward and backward by kind, the least of the rounds."""
    from videomac.models.encoder import SparseEncoder
    from videomac.models.masking import random_mask

    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = SparseEncoder(timm.create_model(backbone, num_classes=0).to(memory_format=torch.channels_last))
    frames = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    mask = random_mask(batch, (224 // encoder.stride,) * 2, 0.75)
    found = []
    for _ in range(rounds + 1):
        encoder.zero_grad()
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            encoder(frames, mask).sum().backward()
        seconds = dict.fromkeys(KINDS, 0.0)
        for event in profiler.key_averages():
            kind = next((kind for kind, names in KINDS.items() if event.key in names), "elementwise and sums")
            seconds[kind] += event.self_cpu_time_total / 1e6
        found.append(seconds)
    return min(found[1:], key=lambda seconds: sum(seconds.values()))


def draw(files: list[Path], out: Path) -> None:
    """One bar a recording and network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    recordings = [json.loads(file.read_text()) for file in files]
    bars = [(name, r["label"], r["seconds"][name]) for name in recordings[0]["seconds"] for r in recordings]
    figure, axis = plt.subplots(figsize=(9, 0.6 * len(bars) + 1.3), layout="constrained")
    left = [0.0] * len(bars)
    for kind in KINDS:
        widths = [seconds[kind] for _, _, seconds in bars]
        axis.barh([f"{name}\n{label}" for name, label, _ in bars], widths, left=left, label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axis.text(total, place, f" {total:.2f} s", va="center")
    axis.invert_yaxis()
    axis.set(xlabel="seconds of one forward and backward of the encoder", xlim=(0, 1.12 * max(left)))
    figure.legend(loc="outside upper center", ncols=len(KINDS), fontsize="small")
    figure.savefig(out, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("--label", required=True)
    recorder.add_argument("--backbones", nargs="+", default=["convnextv2_tiny", "resnet50"])
    recorder.add_argument("--batch", type=int, default=8)
    recorder.add_argument("--rounds", type=int, default=3)
    drawer = commands.add_parser("draw")
    drawer.add_argument("files", nargs="+", type=Path)
    for command in (recorder, drawer):
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "draw":
        draw(options.files, options.out)
        return
    seconds = {name: record(name, options.batch, options.rounds) for name in options.backbones}
    options.out.write_text(json.dumps({"label": options.label, "seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
