"""`videomac figures`: the figures, and what each of them is drawn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videomac.config import save_config
from videomac.data.discovery import find_videos
from videomac.data.video import Video
from videomac.errors import UserError
from videomac.evaluate.compare import read_run
from videomac.figures import fig2_attribution, fig4_labels, fig5_mask, fig6_fig7_losses, fig8_reconstruction
from videomac.figures.common import Drawn
from videomac.figures.config import FiguresConfig
from videomac.models.checkpoint import load_videomac
from videomac.utils.device import pick_device
from videomac.utils.run_dir import prepare_out_dir, table, write_metrics

OWNED = (
    *("config.yaml", "metrics.json", "environment.json", "report.html"),
    *("fig*.png", "fig*.svg", "fig*.npz", "fig*.csv", "fig*.json"),
)
NO_VIDEO, NO_LABELS = Drawn("not drawn: needs --video"), Drawn("not drawn: needs --evaluations")
NO_CURVES = Drawn("not drawn: needs folders of runs")


def run(config: FiguresConfig) -> dict[str, Any]:
    """Draw every figure whose material is given; say of the others what they need.

    Returns:
        what `metrics.json` holds: the numbers in the figures.

    Raises:
        UserError: an unusable run, video or evaluation, a video that is too short, an out folder in use.
    """
    model = load_videomac(config.runs[0]).to(pick_device(config.device)).eval()
    curves = [fig6_fig7_losses.read_curve(run) for run in config.runs] if config.runs[0].is_dir() else []
    labels = [fig4_labels.read_labels(read_run(folder)) for folder in config.evaluations or []]
    video = None if config.video is None else _one_video(config.video, config.frame_gap)
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)
    drawn = {
        "fig2": fig2_attribution.draw(config, model, video) if video else NO_VIDEO,
        "fig4": fig4_labels.draw(config.out, labels) if labels else NO_LABELS,
        "fig5": fig5_mask.draw(config, model),
        "fig6": fig6_fig7_losses.draw_components(config.out, curves) if curves else NO_CURVES,
        "fig7": fig6_fig7_losses.draw_consistency(config.out, curves) if curves else NO_CURVES,
        "fig8": fig8_reconstruction.draw(config, model, video) if video else NO_VIDEO,
    }
    metrics = {key: number for figure in drawn.values() for key, number in figure.numbers.items()}
    write_metrics(config.out, metrics)
    print(table([(name, figure.sentence) for name, figure in drawn.items()]))
    print(f"each as .png, .svg and data in {config.out}")
    return metrics


def _one_video(path: Path, frame_gap: int | str) -> Video:
    videos = find_videos(path, frame_gap)
    if len(videos) > 1:
        raise UserError(f"{path} holds {len(videos)} videos: name one of them")
    return videos[0]
