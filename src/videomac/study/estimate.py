"""How long a study will take, from the first steps of one run and the judgement of one sequence."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from videomac.evaluate.benchmarks import davis
from videomac.study.config import StudyConfig
from videomac.study.plan import Study
from videomac.train import pretrain
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData

STEPS = 6
"""That are taken; the first is not counted."""


@dataclass(frozen=True)
class Estimate:
    """What one run takes.

    Attributes:
        steps: of its pre-training.
        seconds_per_step: measured.
        frames: of the benchmark.
        seconds_per_frame: measured, at all stages together.
    """

    steps: int
    seconds_per_step: float
    frames: int
    seconds_per_frame: float

    @property
    def seconds(self) -> float:
        """Of the whole run, without a probe."""
        return self.steps * self.seconds_per_step + self.frames * self.seconds_per_frame


def estimate(config: StudyConfig, study: Study) -> Estimate:
    """Take a few steps of the first row and judge the shortest sequence with what they gave, in a folder of its own.

    Raises:
        UserError: what a run would raise.
    """
    assert config.data is not None and config.benchmark is not None
    threads = torch.get_num_threads()
    if config.jobs > 1:
        torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            whole = study.pretraining(study.rows[0], study.seeds[0], config.data, Path(folder) / "pretrain")
            model = pretrain.build_model(whole)
            steps = PretrainingData(whole, model).total_steps
            length = {"steps": STEPS, "epochs": None, "warmup_epochs": None}
            short = replace(whole, **length, held_out=0, resume=False, cache=0.0)  # type: ignore[arg-type]
            return Estimate(steps, _seconds_per_step(short), *_judge(config, study, short.out, Path(folder)))
    finally:
        torch.set_num_threads(threads)


def _seconds_per_step(config: PretrainConfig) -> float:
    return config.global_batch_size / float(pretrain.run(config)["pairs_per_second"])


def _judge(config: StudyConfig, study: Study, backbone: Path, folder: Path) -> tuple[int, float]:
    """Frames of the benchmark, and seconds for each."""
    assert config.benchmark is not None
    settings = study.judgement(study.stages[0], str(backbone), config.benchmark, folder)
    sequences = davis.find(settings.data, settings.split, settings.resolution, settings.sequences)
    shortest = min(sequences, key=lambda sequence: len(sequence.masks))
    configs = [
        study.judgement(stage, str(backbone), config.benchmark, folder / f"stage{stage}", sequences=[shortest.name])
        for stage in sorted(study.stages)
    ]
    begin = time.perf_counter()
    davis.run_stages(configs)
    return sum(len(sequence.masks) for sequence in sequences), (time.perf_counter() - begin) / len(shortest.masks)
