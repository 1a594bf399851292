"""Object detection on a pre-trained backbone: torchvision's Faster R-CNN with a feature pyramid over timm's stages.

python examples/detection.py runs/mine/backbone

Trains on made-up pictures of discs, boxes and triangles, as a stand-in for your own pictures and boxes.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator

import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, masks_to_boxes
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from videomac.data.synthetic import moving_shapes

CLASSES = 4  # background, disc, box, triangle


class Pyramid(nn.Module):
    """The stages of an exported backbone, joined top-down: what torchvision's detectors take for a backbone."""

    def __init__(self, backbone: str, out_channels: int = 128) -> None:
        super().__init__()
        self.body = timm.create_model(f"local-dir:{backbone}", pretrained=True, features_only=True)
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), out_channels, LastLevelMaxPool())
        self.out_channels = out_channels
        self.levels = len(self.body.feature_info.channels()) + 1

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Frames to maps by level, finest first."""
        return self.fpn(OrderedDict((str(level), x) for level, x in enumerate(self.body(frames))))


def build(backbone: str, min_size: int = 128) -> FasterRCNN:
    """Faster R-CNN; it normalises with ImageNet's mean and standard deviation, which is what the backbone wants."""
    pyramid = Pyramid(backbone)
    sizes = tuple((16 * 2**level,) for level in range(pyramid.levels))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * pyramid.levels)
    return FasterRCNN(pyramid, CLASSES, rpn_anchor_generator=anchors, min_size=min_size, max_size=2 * min_size)


def pictures(count: int, size: tuple[int, int] = (128, 160), seed: int = 0) -> tuple[list[Tensor], list[dict]]:
    """Pictures in [0, 1] and, for each, `boxes` [n, 4] (x1, y1, x2, y2) and `labels` [n], as torchvision wants them."""
    images, targets = [], []
    for number in range(count):
        frames, ids = moving_shapes(1, size, num_objects=3, seed=seed + number)
        labels = torch.tensor([label for label in (1, 2, 3) if (ids == label).sum() > 50])
        boxes = masks_to_boxes(ids == labels[:, None, None])
        images.append(frames[0] / 255)
        targets.append({"boxes": boxes + torch.tensor([0, 0, 1, 1]), "labels": labels})
    return images, targets


def train(detector: FasterRCNN, steps: int = 30, batch_size: int = 2) -> Iterator[float]:
    """AdamW on the detector's own losses; yields their sum at each step."""
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-4, weight_decay=0.05)
    detector.train()
    for step in range(steps):
        loss = sum(detector(*pictures(batch_size, seed=1000 + step * batch_size)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


if __name__ == "__main__":
    model = build(sys.argv[1])
    for number, total in enumerate(train(model), start=1):
        if number % 5 == 0:
            print(f"step {number}: loss {total:.3f}")
    model.eval()
    with torch.no_grad():
        found = model(pictures(1)[0])[0]
    for box, label, score in list(zip(*found.values(), strict=True))[:5]:
        print(f"class {label}, score {score:.2f}, box {[round(side) for side in box.tolist()]}")
