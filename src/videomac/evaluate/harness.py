"""What the three evaluations share: the out folder, the backbone, the stream of features, the progress bar."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import tee
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from videomac.config import read_config
from videomac.errors import UserError
from videomac.evaluate.config import FREE_ON_RESUME, EvalConfig
from videomac.evaluate.features import RAW_PIXELS, FeatureExtractor
from videomac.evaluate.images import read_frame
from videomac.evaluate.labels import resize_frames
from videomac.evaluate.propagation import propagate_stream
from videomac.evaluate.protocols import EvalProtocol, changes, frame_size
from videomac.evaluate.stages import SharedExtractor, share_a_pass
from videomac.models.resolve import resolve
from videomac.utils.device import autocast, pick_device
from videomac.utils.names import require_names
from videomac.utils.run_dir import prepare_out_dir

RUN_FILES = (
    *("config.yaml", "metrics.json", "environment.json", "report.html", "*.csv"),
    *("predictions", "overlays", "sheets"),
)
Item = TypeVar("Item")
Result = TypeVar("Result")


class DataWarning(UserWarning):
    """Something in a data set that is worth knowing but does not stop the evaluation."""


@dataclass
class Evaluation:
    """An evaluation under way: the out folder is ours, the backbone is loaded, the settings are fixed and stored."""

    config: EvalConfig
    protocol: EvalProtocol
    extractor: FeatureExtractor
    device: torch.device

    @classmethod
    def begin(cls, config: EvalConfig) -> Evaluation:
        """Load the backbone, prepare the out folder, print and store every setting.

        Raises:
            UserError: the backbone cannot be had, or the folder holds another evaluation.
        """
        protocol, device = config.resolved, pick_device(config.device)
        backbone, weights = _load(config, device)
        extractor = FeatureExtractor(
            backbone,
            stage=protocol.stage,
            stride=protocol.stride,
            dilate=protocol.dilate,
            normalization=protocol.normalization,
            required=config.stride is not None,
        ).to(device)
        settings = describe(config, protocol, extractor, weights)
        if config.resume:
            _check_same(config.out, settings)
        else:
            prepare_out_dir(config.out, RUN_FILES, overwrite=config.overwrite)
        (config.out / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        print(_headline(config, protocol, extractor, weights), flush=True)
        return cls(config, protocol, extractor, device)

    def propagate(self, frames: list[Path], size: tuple[int, int], first: Tensor) -> Iterator[Tensor]:
        """Label maps of a sequence, one a frame.

        Args:
            frames: the pictures.
            size: of the network's input.
            first: label map of frame 0 on the grid.
        """
        (features,) = feature_streams([self], frames, size)
        return self.propagate_features(features, first)

    def propagate_features(self, features: Iterator[Tensor], first: Tensor) -> Iterator[Tensor]:
        """Label maps of a sequence whose feature maps are given."""
        return propagate_stream(features, first.to(self.device), self.protocol)

    def input_size(self, frame: tuple[int, int]) -> tuple[int, int]:
        """Size of the network's input for frames of a size."""
        return frame_size(self.protocol.size, frame)


def feature_streams(
    evaluations: Sequence[Evaluation], frames: list[Path], size: tuple[int, int]
) -> list[Iterator[Tensor]]:
    """Features of each frame of a sequence for each evaluation, computed in batches; pictures are read ahead of time.

    Several evaluations are of one network, from its first stage to its last, and are consumed in step: what one is
    ahead of the others is kept.

    Args:
        evaluations: one or more, alike but for the stage.
        frames: the pictures.
        size: of the network's input.
    """
    first = evaluations[0]
    extractors = [evaluation.extractor for evaluation in evaluations]
    shared = SharedExtractor(extractors) if share_a_pass(extractors) else None

    def maps() -> Iterator[list[Tensor]]:
        length = first.config.batch_size
        batches = [frames[i : i + length] for i in range(0, len(frames), length)]
        for pictures in ahead(lambda batch: np.stack([read_frame(path) for path in batch]), batches, threads=1):
            batch = resize_frames(torch.from_numpy(pictures).to(first.device).permute(0, 3, 1, 2), size)
            with torch.inference_mode(), autocast(first.config.precision, first.device):
                found = shared(batch) if shared else [extractor(batch) for extractor in extractors]
            yield from zip(*(each.unbind() for each in found), strict=True)

    return [map(itemgetter(number), copy) for number, copy in enumerate(tee(maps(), len(evaluations)))]


def _load(config: EvalConfig, device: torch.device) -> tuple[Any, str]:
    """The backbone that the options name, and where its weights are from."""
    given = config.backbone
    if not isinstance(given, str | Path):
        return given, "as given"
    if str(given) == RAW_PIXELS:
        return RAW_PIXELS, "none"
    with torch.random.fork_rng(devices=[]):
        backbone, weights = resolve(
            given, pretrained=config.pretrained, network=config.network, weights=config.weights, seed=config.seed
        )
    return backbone.to(device), weights


def describe(config: EvalConfig, protocol: EvalProtocol, extractor: FeatureExtractor, weights: str) -> dict[str, Any]:
    """Everything that the result depends on, for `config.yaml`."""
    settings: dict[str, Any] = {"command": f"eval {config.benchmark}", "benchmark": config.benchmark}
    settings |= {"protocol": protocol.name}
    settings |= {"changed_settings": sorted(changes(protocol, config.benchmark))}
    settings |= {key: value for key, value in asdict(protocol).items() if key != "name"}
    chosen = {key: getattr(config, key) for key in ("split", "sequences", "resolution") if hasattr(config, key)}
    settings |= {"data": str(config.data), "precision": config.precision, **chosen}
    settings |= {"weights": weights, "seed": config.seed, "features": extractor.description}
    return settings


def _headline(config: EvalConfig, protocol: EvalProtocol, extractor: FeatureExtractor, weights: str) -> str:
    """The settings in a few lines for the terminal."""
    found = extractor.description
    changed = changes(protocol, config.benchmark)
    lines = [
        f"{config.benchmark}: {found['backbone']}, weights: {weights}, stage {found['stage']}, "
        f"{found['channels']} channels, grid stride {found['stride']}{', dilated' if found['dilate'] else ''}",
        f"protocol {protocol.name}{' with ' + ', '.join(changed) + ' changed' if changed else ''}:",
    ]
    pairs = [f"{key}={value}" for key, value in asdict(protocol).items() if key != "name"]
    lines += ["  " + "  ".join(pairs[i : i + 5]) for i in range(0, len(pairs), 5)]
    return "\n".join(lines)


def _check_same(out: Path, settings: dict[str, Any]) -> None:
    """Refuse to continue an evaluation with settings that move its numbers."""
    before = _stored_settings(out)
    keys = {*before, *settings} - FREE_ON_RESUME
    if changed := sorted(key for key in keys if before.get(key) != settings.get(key)):
        raise UserError(
            f"cannot resume {out} with other settings: {', '.join(changed)} differ from its config.yaml; take another "
            "--out, or --overwrite"
        )


def _stored_settings(out: Path) -> dict[str, Any]:
    if not (out / "config.yaml").is_file():
        raise UserError(f"there is no evaluation to resume in {out} (no config.yaml): leave --resume out")
    return read_config(out, "eval")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int = 2) -> Iterator[Result]:
    """Map a function over items in threads, a few items ahead of the consumer, in order."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def progress(total: int, title: str) -> Any:
    """A bar that counts frames, with frames/s and the time left; silent where nobody watches."""
    return tqdm(total=total, desc=title, unit=" frames", disable=not sys.stderr.isatty(), dynamic_ncols=True)


def select(found: list[str], wanted: list[str] | None, where: Path, parts: int = 1) -> list[str]:
    """The wanted names, or all.

    Args:
        found: names in a list of the data set, or of its folders.
        wanted: those asked for; None: all.
        where: the list or folder.
        parts: of a name; 2 for `class/video`.

    Raises:
        UserError: a wanted name is not there, there is none at all, or one is a path.
    """
    require_names(found, where, parts)
    if wanted is None:
        if not found:
            raise UserError(f"{where} names no sequence: check the split")
        return found
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"sequence {missing[0]!r} is not in {where}: it has {', '.join(found[:5])}, ...")
    return wanted


def warn(message: str) -> None:
    """Warn about the data."""
    warnings.warn(message, DataWarning, stacklevel=3)
