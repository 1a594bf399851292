"""Write tests/golden/trajectories.json: what our code computed once it reproduced the authors' own numbers.

Parameters and frames are formulas, so the file holds results only. Run it again only when a change of the numbers is
meant: `python tests/golden/make.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from videomac.models.backbones import create_backbone
from videomac.models.videomac import VideoMAC
from videomac.train.optim import parameter_groups

GOLDEN = Path(__file__).with_name("trajectories.json")
MOMENTA = (0.5, 0.8, 0.9)
NETWORKS = {
    "convnextv2": ("convnextv2_tiny", {"depths": (1, 1, 2, 1), "dims": (4, 8, 12, 16)}),
    "convnext": ("convnext_tiny_no_layer_scale", {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16)}),
    "resnet_basic": ("resnet18_patchify", {"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16)}),
    "resnet_bottleneck": ("resnet50_patchify", {"layers": (1, 2, 1, 1), "channels": (4, 8, 12, 16)}),
}
CASES = [(network, preset) for network in NETWORKS for preset in ("paper", "official")]
# 3 visible patches of 12 in each of three frames.
VISIBLE = [[(0, 0), (1, 1), (1, 2)], [(0, 3), (1, 3), (2, 0)], [(2, 1), (2, 2), (0, 2)]]


def build(network: str, preset: str, mode: str = "auto") -> VideoMAC:
    """A small model whose parameters are waves around their usual values, the same on every machine."""
    name, settings = NETWORKS[network]
    model = VideoMAC(create_backbone(name, **settings), decoder_width=8, preset=preset, mode=mode).double()
    for which, start in ((model.online, 0.0), (model.target, 0.4)):
        for index, (key, parameter) in enumerate(which.named_parameters()):
            wave = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + index + start)
            is_norm_weight = parameter.ndim == 1 and key.endswith("weight") and "grn" not in key
            parameter.data = (0.3 * wave).view_as(parameter) + float(is_norm_weight)
    return model


def inputs() -> tuple[Tensor, Tensor]:
    """Three pairs of 96 x 128 pixels, the second frame a little later than the first, and their masks."""
    time = torch.arange(3)[:, None, None] + torch.tensor([0.0, 0.3])[:, None]
    phase = (time + torch.arange(3) * 0.9)[..., None, None]
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    pair = torch.sin(y.double() * 0.21 + phase) + torch.cos(x.double() * 0.13 * (1 + phase) + phase)
    mask = torch.ones(3, 3, 4, dtype=torch.bool)
    for sample, cells in enumerate(VISIBLE):
        for row, column in cells:
            mask[sample, row, column] = False
    return pair, mask


def trajectory(model: VideoMAC) -> list[dict[str, float]]:
    """Losses, gradient norm, and one number for each prediction, of three training steps."""
    pair, mask = inputs()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-2, betas=(0.9, 0.95))
    steps = []
    for momentum in MOMENTA:
        out = model(pair, mask)
        optimizer.zero_grad()
        out.loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in model.online.parameters() if p.grad is not None])
        weights = torch.cos(torch.arange(out.online_prediction.numel(), dtype=torch.float64))
        steps.append(
            {
                "online_loss": out.online_loss.item(),
                "target_loss": out.target_loss.item(),
                "consistency_loss": out.consistency_loss.item(),
                "loss": out.loss.item(),
                "gradient_norm": norm.item(),
                "feature_std": out.feature_std.item(),
                "online_prediction": (out.online_prediction.detach().flatten() * weights).mean().item(),
                "target_prediction": (out.target_prediction.flatten() * weights).mean().item(),
            }
        )
        optimizer.step()
        model.update_target(momentum)
    return steps


if __name__ == "__main__":
    results = {f"{network} {preset}": trajectory(build(network, preset)) for network, preset in CASES}
    GOLDEN.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
