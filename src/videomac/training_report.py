"""What a finished run leaves: exported weights, pictures, final numbers, a summary."""

from __future__ import annotations

from typing import Any

from videomac.callbacks import read_rows
from videomac.checkpoint import save_backbone
from videomac.config import PretrainConfig
from videomac.model import VideoMAC
from videomac.outputs import table, write_metrics
from videomac.training_data import TrainingData
from videomac.training_setup import Run
from videomac.visualize import loss_curves

LOSSES = ("loss", "online_loss", "target_loss", "consistency_loss")


def finish(config: PretrainConfig, data: TrainingData, model: VideoMAC, run: Run) -> dict[str, Any]:
    """Export the online network, draw the curves, write `metrics.json` (means over the last epoch), print a summary."""
    save_backbone(model, config.out / "backbone", name=config.backbone)
    loss_curves(config.out / "metrics.csv", config.out / "losses.png")
    rows = read_rows(config.out / "metrics.csv", last_step=data.total_steps)
    last_epoch = rows[-data.steps_per_epoch :]
    metrics: dict[str, Any] = {key: sum(float(row[key]) for row in last_epoch) / len(last_epoch) for key in LOSSES}
    metrics["pairs_per_second"] = run.speed.rate
    metrics["data_wait_share"] = run.speed.data_wait
    if run.pictures.result is not None:
        metrics["held_out_loss"] = run.pictures.result.loss
        metrics["held_out_zero_loss"] = run.pictures.result.zero_loss
    metrics["steps"] = data.total_steps
    metrics["videos"] = data.num_videos
    metrics["skipped_videos"] = data.num_skipped
    metrics["skipped_pairs"] = round(sum(float(row["skipped_pairs"]) for row in rows))
    write_metrics(config.out, metrics)
    print(f"\n{config.backbone}, pre-trained for {config.epochs} epochs ({data.total_steps} steps):")
    print(table([(key.replace("_", " "), value) for key, value in metrics.items()]))
    print(f"\nIn {config.out}:")
    print(
        table(
            [
                ("backbone/", "the weights, for timm.create_model('local-dir:...', pretrained=True)"),
                ("checkpoints/", "last.ckpt, for `videomac reconstruct` and --init_from"),
                ("losses.png", "the curves of metrics.csv"),
                *([("reconstruction.png", "held-out pairs")] if run.pictures.result else []),
            ]
        )
    )
    return metrics
