"""`videomac figures`: which figures can be drawn from what was given, and their files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from videomac.config import save_config
from videomac.data.discovery import find_videos
from videomac.data.transforms import normalize, resize
from videomac.data.video import Video, VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.evaluate.compare import COLUMNS, Run, read_run
from videomac.figures import fig2_attribution, fig4_labels, fig6_fig7_losses, fig8_reconstruction
from videomac.figures.config import FiguresConfig
from videomac.inspection import mask_dissipation
from videomac.models.checkpoint import load_videomac, trained_size
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.pairs import MaskedPairs, fitting_size, reconstruct_pairs
from videomac.reconstruction.pictures import Reconstruction, reconstruct_frames
from videomac.utils.device import pick_device
from videomac.utils.run_dir import prepare_out_dir, table, write_metrics, write_rows
from videomac.utils.spacing import evenly_spaced

OWNED = (
    "config.yaml",
    "metrics.json",
    "environment.json",
    "report.html",
    "fig*.png",
    "fig*.svg",
    "fig*.npz",
    "fig*.csv",
    "fig*.json",
)
LABEL_COLUMNS = 5


def run(config: FiguresConfig) -> dict[str, Any]:
    """Draw every figure whose material is given; say of the others what they need.

    Returns:
        what `metrics.json` holds: the numbers in the figures.

    Raises:
        UserError: an unusable run, video or evaluation, a video that is too short, an out folder in use.
    """
    device = pick_device(config.device)
    model = load_videomac(config.runs[0]).to(device).eval()
    found = [fig6_fig7_losses.read_curve(run) for run in config.runs] if config.runs[0].is_dir() else []
    evaluations = [read_run(folder) for folder in config.evaluations or []]
    labels = [_propagated(evaluation) for evaluation in evaluations]
    video = None if config.video is None else _video(config.video, config.frame_gap)
    prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
    save_config(config)

    metrics: dict[str, Any] = {}
    drawn: list[tuple[str, str]] = []
    if video is None:
        drawn += [(name, "not drawn: needs --video") for name in ("fig2", "fig8")]
    else:
        metrics |= figure_8(config, model, video)
        drawn.append(
            ("fig8", f"reconstructions (loss {metrics['fig8']:.3f}, predicting zero {metrics['fig8_zero']:.3f})")
        )
        metrics |= figure_2(config, model, video)
        drawn.append(("fig2", f"where reconstruction looks (the two frames' maps correlate by {metrics['fig2']:.2f})"))
    if labels:
        _save(fig4_labels.propagated_labels(labels), config.out / "fig4")
        data = [{"title": task.title, "sequence": task.sequence, "frames": task.frames} for task in labels]
        (config.out / "fig4.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        drawn.append(("fig4", "propagated labels"))
    else:
        drawn.append(("fig4", "not drawn: needs --evaluations"))
    figure_5(config, model)
    drawn.append(("fig5", "the mask in a dense and in our network, after each stage"))
    if found:
        write_rows(config.out / "fig6-7.csv", fig6_fig7_losses.rows(found))
        _save(fig6_fig7_losses.by_component(found), config.out / "fig6")
        drawn.append(("fig6", f"losses of {len(found)} run(s) by component"))
    else:
        drawn.append(("fig6", "not drawn: needs folders of runs"))
    figure, obstacle = fig6_fig7_losses.by_gamma(found) if found else (None, "needs folders of runs")
    if figure is not None:
        _save(figure, config.out / "fig7")
    drawn.append(("fig7", f"not drawn: {obstacle}" if figure is None else "consistency loss by gamma and by encoder"))
    write_metrics(config.out, metrics)
    print(table(sorted(drawn)))
    print(f"each as .png, .svg and data in {config.out}")
    return metrics


def figure_2(config: FiguresConfig, model: VideoMAC, video: Video) -> dict[str, Any]:
    """Where reconstruction looks, in the pair in the middle of the video; online network first, target second."""
    start = (len(video) - config.frame_gap) // 2
    pair = _pairs(config, model, video, [start])[0]
    grid = (pair.shape[2] // model.patch_size, pair.shape[3] // model.patch_size)
    masks = fig2_attribution.covering_masks(
        config.masks, grid, model.mask_ratio, torch.Generator().manual_seed(config.seed)
    )
    cell = max(1, model.online.encoder.stride // fig2_attribution.CELLS_PER_STRIDE)
    heats, looked = [], []
    for frame, network, title in zip(pair, (model.online, model.target), ("past frame", "current frame"), strict=True):
        # The same directions for both frames, so that chance does not tell them apart.
        directions = torch.Generator().manual_seed(config.seed)
        contributed = fig2_attribution.contributions(network, frame, masks, cell, generator=directions)
        heats.append(fig2_attribution.heat_map(contributed, masks).cpu())
        with torch.no_grad():
            prediction = network(frame[None], masks[:1])
        shown = reconstruct_frames(frame[None], prediction, masks[:1], norm_pix_loss=model.norm_pix_loss)
        looked.append(fig2_attribution.Looked(title, shown, heats[-1].numpy()))
    similarity = fig2_attribution.correlation(*heats)
    _save(fig2_attribution.where_it_looks(looked, similarity, len(masks)), config.out / "fig2")
    np.savez_compressed(
        config.out / "fig2.npz",
        heat=torch.stack(heats).numpy(),
        masks=masks.numpy(),
        frames=np.stack([item.pictures.frame[0].numpy() for item in looked]),
        frame_numbers=np.array([start, start + config.frame_gap]),
    )
    return {"fig2": similarity}


def figure_5(config: FiguresConfig, model: VideoMAC) -> None:
    """The mask kept against dissolved, for the architecture of the first run."""
    side = config.image_size or trained_size(config.runs[0])
    side = max(1, round(side / model.online.encoder.stride)) * model.online.encoder.stride
    figure, data = mask_dissipation.figure(str(model.arguments["backbone"]), (side, side), model.mask_ratio)
    _save(figure, config.out / "fig5")
    np.savez_compressed(config.out / "fig5.npz", allow_pickle=False, **data)


def figure_8(config: FiguresConfig, model: VideoMAC, video: Video) -> dict[str, Any]:
    """Reconstructions of pairs that are evenly spread over the video."""
    count = min(config.pairs, len(video) - config.frame_gap)
    starts = evenly_spaced(count, len(video) - config.frame_gap)
    pair = _pairs(config, model, video, starts)
    grid = (pair.shape[3] // model.patch_size, pair.shape[4] // model.patch_size)
    ratio = config.mask_ratio or model.mask_ratio
    mask = _mask(count, grid, ratio, config.seed)
    held_out = MaskedPairs(pair.cpu(), mask, tuple(f"{t} and {t + config.frame_gap}" for t in starts))
    result = reconstruct_pairs(model, held_out)
    shown: list[Reconstruction] = [
        reconstruct_frames(pair[:, side], prediction, mask, norm_pix_loss=model.norm_pix_loss)
        for side, prediction in enumerate((result.output.online_prediction, result.output.target_prediction))
    ]
    caption = (
        f"{ratio:.0%} hidden (trained with {model.mask_ratio:.0%}); loss {result.loss:.3f}, where each patch's mean "
    )
    caption += f"costs {result.zero_loss:.3f}"
    if model.norm_pix_loss:
        caption += "\nbrightness and contrast of each patch are taken from the frame"
    _save(fig8_reconstruction.reconstructions(shown[0], shown[1], held_out.labels, caption), config.out / "fig8")
    np.savez_compressed(
        config.out / "fig8.npz",
        allow_pickle=False,
        mask=mask.numpy(),
        frame_numbers=np.array([[t, t + config.frame_gap] for t in starts]),
        **{
            f"{kind}_{side}": getattr(shown[i], kind).numpy()
            for i, side in enumerate("ab")
            for kind in ("frame", "pasted")
        },
    )
    return {"fig8": result.loss, "fig8_zero": result.zero_loss}


def _video(path: Path, frame_gap: int) -> Video:
    videos = find_videos(path, frame_gap)
    if len(videos) > 1:
        raise UserError(f"{path} holds {len(videos)} videos: name one of them")
    return videos[0]


def _pairs(config: FiguresConfig, model: VideoMAC, video: Video, starts: list[int]) -> torch.Tensor:
    """Pairs `[len(starts), 2, 3, H, W]`, normalised, on the model's device."""
    try:
        height, width = video.read([0]).shape[-2:]
        short_side = config.image_size or trained_size(config.runs[0])
        size = fitting_size(height, width, short_side, model.patch_size)
        frames = [normalize(resize(video.read([t, t + config.frame_gap]), size)) for t in starts]
    except VideoError as error:
        raise UserError(f"the video cannot be read: {error}") from error
    return torch.stack(frames).to(next(model.parameters()).device)


def _mask(count: int, grid: tuple[int, int], ratio: float, seed: int) -> torch.Tensor:
    try:
        return random_mask(count, grid, ratio, torch.Generator().manual_seed(seed))
    except ValueError as error:
        raise UserError(str(error)) from error


def _propagated(evaluation: Run) -> fig4_labels.Propagated:
    """Frames at equal distances of the sequence with the median score: neither the best nor the worst."""
    scores = sequence_scores(evaluation)
    overlays = {path.stem: path for path in sorted((evaluation.folder / "overlays").glob("*.mp4"))}
    ranked = sorted((stem for stem in scores if stem in overlays), key=lambda stem: (scores[stem], stem))
    if not ranked:
        raise UserError(f"{evaluation.folder} has no overlays/*.mp4: evaluate again without --videos false")
    stem = ranked[(len(ranked) - 1) // 2]
    clip = VideoFile(overlays[stem])
    frames = np.unique(np.linspace(0, len(clip) - 1, min(LABEL_COLUMNS, len(clip))).round().astype(int)).tolist()
    benchmark = evaluation.settings["benchmark"]
    key = COLUMNS[benchmark][0]
    task = {"davis": "objects", "vip": "body parts", "jhmdb": "joints"}[benchmark]
    title = f"{benchmark.upper()}, {task}: {key} {100 * scores[stem]:.1f} of {stem}, the median sequence"
    title += f" (all: {100 * evaluation.numbers[key]:.1f})"
    return fig4_labels.Propagated(title, stem, frames, [*clip.read(frames).permute(0, 2, 3, 1).numpy()])


def sequence_scores(evaluation: Run) -> dict[str, float]:
    """The main number of each sequence, by the name of its files; DAVIS counts objects, which are averaged."""
    with (evaluation.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if evaluation.settings["benchmark"] != "davis":
        key = COLUMNS[evaluation.settings["benchmark"]][0]
        return {row["Sequence"].replace("/", "_"): float(row[key]) for row in rows}
    objects: dict[str, list[float]] = {}
    for row in rows:
        name = row["Sequence"].rpartition("_")[0]
        objects.setdefault(name, []).append((float(row["J-Mean"]) + float(row["F-Mean"])) / 2)
    return {name: sum(values) / len(values) for name, values in objects.items()}


def _save(figure: Figure, stem: Path) -> None:
    """Write PNG and SVG; text stays text in the SVG, and equal figures give equal files."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": stem.name}):
        figure.savefig(stem.with_suffix(".png"), dpi=150)
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
