"""The method in an ordinary training loop, without Lightning: `videomac pretrain` gives the same numbers.

python examples/plain_pytorch.py MY_VIDEOS
"""

import sys
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from videomac import VideoMAC
from videomac.data.discovery import find_videos
from videomac.data.loader import PairSampler
from videomac.data.pairs import FramePairs
from videomac.data.transforms import PairTransform
from videomac.models.checkpoint import save_backbone
from videomac.models.ema import momentum_at
from videomac.models.masking import MaskSampler
from videomac.train.optim import learning_rate_at, parameter_groups, scaled_lr


def pretrain(
    data: str,
    out: str,
    backbone: str = "convnextv2_atto",
    image_size: int = 224,
    batch_size: int = 64,
    epochs: int = 100,
) -> Iterator[dict[str, float]]:
    """Train on all pairs of the videos below `data`, yielding the losses of each step; then export the backbone."""
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    torch.manual_seed(0)
    model = VideoMAC(backbone).to(device)
    grid = (image_size // model.patch_size, image_size // model.patch_size)
    pairs = FramePairs(
        find_videos(data), transform=PairTransform((image_size, image_size)), sample_mask=MaskSampler(grid)
    )
    sampler = PairSampler(len(pairs), global_batch_size=batch_size)
    loader = DataLoader(pairs, batch_sampler=sampler, num_workers=2)
    optimizer = torch.optim.AdamW(parameter_groups(model, weight_decay=0.05), betas=(0.9, 0.95))

    steps, step = epochs * sampler.steps_per_epoch, 0
    warmup_steps = round(min(10, epochs / 10) * sampler.steps_per_epoch)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, steps, warmup_steps, peak=scaled_lr(1e-3, batch_size))
            output = model(batch["pair"].to(device), batch["mask"])
            optimizer.zero_grad()
            output.loss.backward()
            optimizer.step()
            model.update_target(momentum_at(step, steps))
            step += 1
            yield {name: getattr(output, name).item() for name in ("loss", "online_loss", "target_loss")}
    save_backbone(model, out, name=backbone)


if __name__ == "__main__":
    for number, losses in enumerate(pretrain(data=sys.argv[1], out="runs/plain_pytorch"), start=1):
        print(f"step {number}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
