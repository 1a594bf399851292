"""A network that is trained contrastively on videos, for the table of docs/cycle.md.

    python benchmarks/contrastive.py --data CLIPS --out OUT [--backbone convnextv2_atto] [--steps 300]

SimCLR on single frames: two random crops of a frame, their colours jittered, must be told from those of other frames
(InfoNCE at temperature 0.2, over a batch of 64 frames). OUT is then a backbone like any export.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2
from tqdm import tqdm

from videomac.data.discovery import find_videos
from videomac.data.transforms import IMAGENET_MEAN, IMAGENET_STD, resize_short_side
from videomac.models.checkpoint import save_backbone


def frames_of(data: Path, per_video: int, short_side: int) -> list[Tensor]:
    """Some frames of each video, evenly spread, as bytes."""
    frames = []
    for video in tqdm(find_videos(data), "reading", unit=" videos"):
        numbers = np.linspace(0, len(video) - 1, per_video).round().astype(int).tolist()
        frames += list(resize_short_side(video.read(sorted(set(numbers))), short_side))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backbone", default="convnextv2_atto")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=96)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    backbone = timm.create_model(arguments.backbone, num_classes=0)
    head = nn.Sequential(nn.Linear(backbone.num_features, 256), nn.ReLU(), nn.Linear(256, 64))
    parameters = [*backbone.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, arguments.steps)
    view = v2.Compose(
        [
            v2.RandomResizedCrop(arguments.size, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    frames = frames_of(arguments.data, per_video=8, short_side=160)
    for _ in (bar := tqdm(range(arguments.steps), "contrasting")):
        batch = [frames[index] for index in torch.randperm(len(frames))[:64]]
        views = torch.stack([view(frame) for frame in batch + batch])
        codes = F.normalize(head(backbone(views)), dim=1)
        likeness = (codes @ codes.T / 0.2).fill_diagonal_(float("-inf"))
        loss = F.cross_entropy(likeness, torch.arange(len(codes)).roll(len(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    save_backbone(backbone, arguments.out, name=arguments.backbone)
    print(f"{arguments.out}: loss {loss.item():.3f} after {arguments.steps} steps")


if __name__ == "__main__":
    main()
