"""`videomac eval cycle`: what a backbone has learned over its own random weights, on footage without labels.

`metrics.csv` gets a row with every clip that is finished, and `curve.csv` with every epoch: a call that was interrupted
goes on from them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from videomac.config import changed_keys, save_config
from videomac.errors import UserError
from videomac.evaluate.config import FREE_ON_RESUME, EvalCycleConfig
from videomac.evaluate.cycle import Verdict, extractor_of, in_words, lead, still, travel, verdict
from videomac.evaluate.cycle_footage import Clip, choose_clips, planted_clips
from videomac.evaluate.cycle_networks import NETWORKS, digest_of, kept_epochs, load_networks, run_trained_on
from videomac.evaluate.cycle_pictures import Shown, draw_clips, draw_curve, draw_scores
from videomac.evaluate.features import FeatureExtractor
from videomac.models.checkpoint import load_backbone
from videomac.utils.device import pick_device
from videomac.utils.io import atomic_write
from videomac.utils.reading import read_text, reading
from videomac.utils.run_dir import holds_out_dir, prepare_out_dir, write_metrics, write_rows
from videomac.utils.spacing import evenly_spaced

OWNED = ("config.yaml", "metrics.json", "environment.json", "source.json", "report.html", "*.csv", "*.png")
STILL = "staying still"
SHOWN_CLIPS = 4
SENTENCES: dict[Verdict, str] = {
    "better": "Training has made these features better at finding things again.",
    "worse": "These features find things again less well than random weights do: something went wrong in training.",
    "undecided": "Whether training has helped, these clips do not say: take more (--num_clips) of more videos.",
}
Scores = dict[str, dict[str, float]]
"""By a clip's name and what was scored on it."""
logger = logging.getLogger(__name__)


@holds_out_dir
def run(config: EvalCycleConfig) -> dict[str, Any]:
    """Score a backbone, its random initialisation and raw pixels on the same clips; write numbers and pictures.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: no usable video, a backbone that cannot be had or that is its own random initialisation, an out
            folder in use, or nothing in it that this call could resume.
        KeyboardInterrupt: the user has had enough; what is finished is kept.
    """
    device = pick_device(config.device)
    kept = kept_epochs(config.backbone) if config.curve else {}
    networks = load_networks(config)
    cure = "lower --frames or --frame_gap"
    clips = choose_clips(config.data, config.num_clips, config.frames, config.frame_gap, cure)
    if (folder := run_trained_on(config.backbone, config.data)) is not None:
        logger.warning("%s was trained on these videos, which flatters it: name others in --data", folder)
    _claim(config, {"clips": _digest(clips), "weights": digest_of(networks[NETWORKS[0]])})
    networks = {name: network.to(device) for name, network in networks.items()}
    with _told_how_to_go_on(config.out):
        scores, shown = _score(config, networks, clips)
        if not scores:
            raise UserError(f"no clip of {config.data} can be read: the warnings above say why")
        metrics = _report(config, scores, shown)
        if kept:
            _report_curve(config, kept, clips, scores)
    write_metrics(config.out, metrics)
    return metrics


def _claim(config: EvalCycleConfig, source: Mapping[str, str]) -> None:
    """Make the out folder ours, or see that it holds just this evaluation begun.

    Args:
        config: the options.
        source: digests of what they name, which must not have changed either.

    Raises:
        UserError: it holds something else.
    """
    path = config.out / "source.json"
    if not config.resume:
        prepare_out_dir(config.out, OWNED, overwrite=config.overwrite)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(source) + "\n", encoding="utf-8")
        save_config(config)
        return
    if not (config.out / "config.yaml").is_file():
        raise UserError(f"there is no evaluation to resume in {config.out} (no config.yaml): leave --resume out")
    changed = changed_keys(config, config.out, FREE_ON_RESUME)
    if not changed:
        with reading(path):
            stored = json.loads(read_text(path))
            changed = [f"the {key}" for key in source if stored.get(key) != source[key]]
    if changed:
        raise UserError(
            f"cannot resume {config.out}: {', '.join(changed)} changed since; take another --out, or --overwrite"
        )
    (config.out / "metrics.json").unlink(missing_ok=True)  # which says that everything is there
    save_config(config)


def _digest(clips: Sequence[Clip]) -> str:
    return hashlib.sha256("\n".join(clip.name for clip in clips).encode()).hexdigest()[:16]


@contextmanager
def _told_how_to_go_on(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        cure = f"go on with the same command and --resume; {out} has what is finished"
        raise KeyboardInterrupt(f"interrupted: {cure}") from None


def _score(
    config: EvalCycleConfig, networks: Mapping[str, FeatureExtractor], clips: Sequence[Clip]
) -> tuple[Scores, list[Shown]]:
    """The scores of all clips that can be read, those included that are finished, and what the picture shows.

    A finished clip that belongs into the picture is followed again, until there is a picture.
    """
    path = config.out / "metrics.csv"
    scores = {row["clip"]: {name: float(row[_column(name)]) for name in (*NETWORKS, STILL)} for row in _finished(path)}
    if scores:
        print(f"{len(scores)} of {len(clips)} clips are done already", flush=True)
    pictured: set[str] = set()
    if not (config.out / "tracks.png").exists():
        pictured = {clips[index].name for index in evenly_spaced(min(SHOWN_CLIPS, len(clips)), len(clips))}
    shown: list[Shown] = []
    for clip, planted in planted_clips(clips, config.short_side, without=scores.keys() - pictured):
        wanted = NETWORKS[:2] if clip.name in scores else NETWORKS
        returns = {name: travel(networks[name], planted, config.batch_size) for name in wanted}
        if clip.name not in scores:
            scores[clip.name] = {**{name: home.score for name, home in returns.items()}, STILL: still(planted)}
            scores = {each.name: scores[each.name] for each in clips if each.name in scores}
            write_rows(path, _rows(scores))
            (config.out / "curve.csv").unlink(missing_ok=True)  # it is of fewer clips
        if clip.name in pictured:
            shown.append(Shown(clip.name, planted, {name: returns[name] for name in NETWORKS[:2]}))
    return scores, shown


def _column(name: str) -> str:
    return name.replace(" ", "_")


def _rows(scores: Scores) -> list[dict[str, Any]]:
    """The rows of `metrics.csv`."""
    return [
        {
            "clip": clip,
            **{_column(name): score for name, score in row.items()},
            "difference": row[NETWORKS[0]] - row[NETWORKS[1]],
        }
        for clip, row in scores.items()
    ]


def _finished(path: Path) -> list[dict[str, str]]:
    """The rows of a table that an interrupted call has begun."""
    if not path.is_file():
        return []
    with reading(path):
        return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def _report(config: EvalCycleConfig, scores: Scores, shown: Sequence[Shown]) -> dict[str, Any]:
    """Draw and print what came out."""
    columns = {name: [row[name] for row in scores.values()] for name in (*NETWORKS, STILL)}
    ahead = lead(columns[NETWORKS[0]], columns[NETWORKS[1]])
    low, high = ahead["low"], ahead["high"]
    draw_scores(columns, (low, high), config.out / "scores.png")
    if shown:
        with atomic_write(config.out / "tracks.png") as temporary:  # whose being there says that it is finished
            draw_clips(shown, temporary)
    metrics: dict[str, Any] = {_column(name): float(np.mean(values)) for name, values in columns.items()}
    metrics |= {"difference": ahead["difference"], "difference_low": low, "difference_high": high}
    metrics |= {"verdict": verdict(low, high), "clips": len(scores)}
    print(
        f"{config.backbone}, stage {config.stage}: score {metrics['network']:.3f}, with random weights "
        f"{metrics['random_weights']:.3f}, raw pixels {metrics['raw_pixels']:.3f}, staying still "
        f"{metrics['staying_still']:.3f}; over its random weights "
        f"{metrics['difference']:+.3f} (95 % of draws: {low:+.3f} to {high:+.3f}) on {len(scores)} clips"
    )
    print(SENTENCES[verdict(low, high)])
    print(f"scores.png and tracks.png are in {config.out}", flush=True)
    return metrics


def _report_curve(config: EvalCycleConfig, kept: Mapping[int, Path], clips: Sequence[Clip], scores: Scores) -> None:
    """Write how the score rose over the epochs that the run kept, from its random weights on."""
    path, device = config.out / "curve.csv", pick_device(config.device)
    before = [row[NETWORKS[1]] for row in scores.values()]
    rows = [{key: float(value) for key, value in row.items()} | {"epoch": int(row["epoch"])} for row in _finished(path)]
    rows = rows or [{"epoch": 0, **lead(before, before)}]
    done = {row["epoch"] for row in rows}
    for epoch, checkpoint in kept.items():
        if epoch in done:
            continue
        network = extractor_of(load_backbone(checkpoint, config.network), config.stage, config.stride).to(device)
        after = _scores_of(network, config, clips, scores.keys())
        rows = sorted([*rows, {"epoch": epoch, **lead(after, before)}], key=lambda row: row["epoch"])
        write_rows(path, rows)
        print(in_words(next(row for row in rows if row["epoch"] == epoch)), flush=True)
    draw_curve(rows, config.out / "curve.png")


def _scores_of(
    network: FeatureExtractor, config: EvalCycleConfig, clips: Sequence[Clip], wanted: Collection[str]
) -> list[float]:
    """The scores of one network on the clips that the others were scored on."""
    others = {clip.name for clip in clips} - {*wanted}
    found = {
        clip.name: travel(network, planted, config.batch_size).score
        for clip, planted in planted_clips(clips, config.short_side, without=others)
    }
    if lost := [name for name in wanted if name not in found]:
        raise UserError(f"{lost[0]} could be read a while ago and cannot now: see that nobody changes {config.data}")
    return [found[name] for name in wanted]
