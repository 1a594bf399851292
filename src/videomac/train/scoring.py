"""The score without labels while a run trains: the online network's features against the run's own random weights.

It is the score of `videomac eval cycle`, at its settings but on fewer clips, which are planted once and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from videomac.errors import UserError
from videomac.evaluate.cycle import extractor_of, in_words, lead, travel
from videomac.evaluate.cycle_clips import Planted
from videomac.evaluate.cycle_footage import choose_clips, planted_clips, same_footage
from videomac.evaluate.cycle_pictures import draw_curve
from videomac.models.checkpoint import plain_backbone
from videomac.models.videomac import VideoMAC
from videomac.train.callbacks import StepCallback, say
from videomac.train.config import PretrainConfig
from videomac.train.module import TrainModule
from videomac.utils.io import atomic_write
from videomac.utils.run_dir import write_rows
from videomac.utils.seeding import seeded

NUM_CLIPS = 8
FRAMES, FRAME_GAP, SHORT_SIDE = 8, 3, 240
STAGE, STRIDE = 2, 8
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footage:
    """Clips with planted pieces.

    Attributes:
        names: videos, first and last frames.
        planted: the clips.
    """

    names: list[str]
    planted: list[Planted]


def load_footage(config: PretrainConfig) -> Footage | None:
    """Read and plant the clips of `score_on`; None if that is not given.

    Raises:
        UserError: no video, none that is long enough, room for one clip only, or none that can be read.
    """
    if config.score_on is None:
        return None
    if same_footage(config.score_on, config.data):
        logger.warning(
            "score_on %s is footage that the run trains on, which flatters it: name another", config.score_on
        )
    clips = choose_clips(config.score_on, NUM_CLIPS, FRAMES, FRAME_GAP, cure="name longer videos in --score_on")
    found = [(clip.name, planted) for clip, planted in planted_clips(clips, SHORT_SIDE)]
    if not found:
        raise UserError(f"no clip of {config.score_on} can be read: the warnings above say why")
    return Footage([name for name, _ in found], [planted for _, planted in found])


class CycleScore(StepCallback):
    """At each epoch's end: the score, `cycle.csv` and `cycle.png`; without footage it keeps what others have found.

    Args:
        model: that is trained; it is copied whenever it is scored, and never touched.
        random: the same model with the run's random weights.
        footage: clips to score on.

    Raises:
        UserError: nothing can be scored at this stage of the network.
    """

    def __init__(self, model: VideoMAC, random: VideoMAC, footage: Footage | None) -> None:
        self.model, self.footage = model, footage
        self.random = None if footage is None else _extractor(random)
        """Until it has been scored."""
        self.names = [] if footage is None else footage.names
        self.before: list[float] = []
        """The scores of the random weights."""
        self.rows: list[dict[str, float]] = []
        """Of `cycle.csv`."""

    def state_dict(self) -> dict[str, Any]:
        """Keep in the checkpoint what was found up to it."""
        return {"names": self.names, "before": self.before, "rows": self.rows} if self.rows else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what the session before found, if that was on the same clips."""
        if self.footage is not None and self.names != state_dict["names"]:
            logger.warning("the clips of score_on are not those of before: the curve of the score begins anew")
            return
        self.names, self.before, self.rows = state_dict["names"], state_dict["before"], list(state_dict["rows"])
        self.random = None

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Drop rows that an interrupted run wrote after its last checkpoint."""
        if self.rows and trainer.is_global_zero:
            self._publish(module)

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Before the first step: score the random weights, and those that the run starts from if they are others."""
        if self.random is None or not trainer.is_global_zero:
            return
        self.before = self._scores(self.random, module)
        self.random = None
        self._add(module, 0, self.before)
        say(trainer, f"random weights: score {self.rows[0]['score']:.3f}")
        if trainer.global_step == 0 and module.config.init_from is not None:
            self._add(module, 0, self._scores(_extractor(self.model), module))
            say(trainer, in_words(self.rows[1]))

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Score, write and draw, on the first process."""
        if self.footage is None or not module.data.ends_epoch(trainer.global_step) or not trainer.is_global_zero:
            return
        self._add(module, trainer.global_step, self._scores(_extractor(self.model), module))
        say(trainer, in_words(self.rows[-1]))
        module.add_numbers(self.numbers(trainer.global_step))

    def numbers(self, step: int) -> dict[str, float]:
        """What `metrics.json` and the loggers hold of a step; empty if it was not scored."""
        if not self.rows or self.rows[-1]["step"] != step:
            return {}
        row = self.rows[-1]
        names = {"score": "", "difference": "_difference", "low": "_difference_low", "high": "_difference_high"}
        return {f"cycle_score{name}": row[key] for key, name in names.items()}

    def _scores(self, extractor: Any, module: TrainModule) -> list[float]:
        assert self.footage is not None
        extractor = extractor.to(module.device)
        return [travel(extractor, planted).score for planted in self.footage.planted]

    def _add(self, module: TrainModule, step: int, scores: Sequence[float]) -> None:
        epoch = -(-step // module.data.steps_per_epoch)
        self.rows.append({"epoch": epoch, "step": step, **lead(scores, self.before)})
        self._publish(module)

    def _publish(self, module: TrainModule) -> None:
        write_rows(module.config.out / "cycle.csv", self.rows)
        with atomic_write(module.config.out / "cycle.png") as temporary:
            draw_curve(self.rows, temporary)


def _extractor(model: VideoMAC) -> Any:
    """The features that a model's online network has now, without a mask; no random state is moved."""
    with seeded(0):
        return extractor_of(plain_backbone(model), STAGE, STRIDE, required=False)
