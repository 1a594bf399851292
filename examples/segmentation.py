"""Semantic segmentation on a pre-trained backbone, with segmentation-models-pytorch.

python examples/segmentation.py runs/mine/backbone

Trains a U-Net on made-up pictures of discs, boxes and triangles, as a stand-in for your own pictures and masks.
"""

import sys
from collections.abc import Iterator

import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from videomac.data.synthetic import moving_shapes
from videomac.data.transforms import normalize

CLASSES = 4  # background, disc, box, triangle


def build(backbone: str) -> torch.nn.Module:
    """A U-Net whose encoder is the exported folder; `encoder_weights=True` loads its weights, None does not."""
    return smp.Unet(f"tu-local-dir:{backbone}", encoder_weights=True, classes=CLASSES)


def pictures(count: int, size: tuple[int, int] = (96, 128), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normalised pictures `[count, 3, H, W]` and the class of each pixel `[count, H, W]`."""
    made = [moving_shapes(1, size, num_objects=3, seed=seed + number) for number in range(count)]
    frames, ids = (torch.cat(parts) for parts in zip(*made, strict=True))
    return normalize(frames), ids.long()


def train(model: torch.nn.Module, steps: int = 60, batch_size: int = 8) -> Iterator[float]:
    """AdamW, the encoder at a tenth of the decoder's learning rate; yields the loss of each step."""
    decoder = [p for name, p in model.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": model.encoder.parameters(), "lr": 1e-4}, {"params": decoder, "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    dice = smp.losses.DiceLoss("multiclass")
    model.train()
    for step in range(steps):
        frames, truth = pictures(batch_size, seed=1000 + step * batch_size)
        prediction = model(frames)
        loss = dice(prediction, truth) + torch.nn.functional.cross_entropy(prediction, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


@torch.no_grad()
def mean_iou(model: torch.nn.Module, frames: Tensor, truth: Tensor) -> float:
    """Intersection over union, averaged over the classes."""
    model.eval()
    counts = smp.metrics.get_stats(model(frames).argmax(1), truth, mode="multiclass", num_classes=CLASSES)
    return smp.metrics.iou_score(*(count.sum(0, keepdim=True) for count in counts), reduction="macro").item()


if __name__ == "__main__":
    unet = build(sys.argv[1])
    test = pictures(16)
    print(f"before: mean IoU {mean_iou(unet, *test):.3f}")
    for number, loss in enumerate(train(unet), start=1):
        if number % 10 == 0:
            print(f"step {number}: loss {loss:.3f}")
    print(f"after: mean IoU {mean_iou(unet, *test):.3f}")
