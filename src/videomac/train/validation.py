"""The held-out pairs of a run, and the callback that reconstructs them after each epoch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from videomac.data.split import Excerpt
from videomac.data.transforms import PairTransform
from videomac.data.video import VideoError
from videomac.models.videomac import VideoMAC
from videomac.reconstruction.pairs import MaskedPairs, ReconstructedPairs, reconstruct_pairs
from videomac.reconstruction.pictures import pairs_sheet
from videomac.train.callbacks import StepCallback
from videomac.train.module import TrainModule
from videomac.utils.frame_gap import FrameGap
from videomac.utils.io import atomic_write
from videomac.utils.spacing import evenly_spaced

logger = logging.getLogger(__name__)


def load_held_out(
    excerpts: Sequence[Excerpt], pairs: int, frame_gap: int | str, image_size: tuple[int, int], model: VideoMAC
) -> MaskedPairs | None:
    """Read `pairs` pairs, evenly spread over the excerpts and within each, and draw their masks (seed 0).

    A pair that cannot be read is left out, with a warning; None if none can.
    """
    transform = PairTransform(image_size, augmentation="none")
    generator = torch.Generator().manual_seed(0)
    frames, labels = [], []
    for number, excerpt in enumerate(excerpts):
        share = pairs // len(excerpts) + (number < pairs % len(excerpts))
        gap = FrameGap(frame_gap).frames(excerpt.fps)
        for first in evenly_spaced(share, len(excerpt) - gap):
            try:
                frames.append(transform(excerpt.read([first, first + gap]), generator))
            except VideoError as error:
                logger.warning("left out a held-out pair that cannot be read: %s", error)
                continue
            shown = excerpt.start + first
            labels.append(f"{excerpt.name}, frames {shown} and {shown + gap}")
    if not frames:
        return None
    return MaskedPairs(torch.stack(frames), model.sample_mask(len(frames), image_size, generator), tuple(labels))


class ReconstructionPreview(StepCallback):
    """At each epoch's end: the held-out loss and the reconstruction sheet."""

    def __init__(self, model: VideoMAC, held_out: MaskedPairs | None) -> None:
        self.model, self.held_out = model, held_out
        self.result: ReconstructedPairs | None = None
        self.numbers: dict[str, float] = {}
        """Held-out loss and flat-patch baseline of the last time; empty where nothing is held out."""

    def state_dict(self) -> dict[str, float]:
        """Keep the numbers in the checkpoint, for a run whose steps are done but not its results."""
        return self.numbers

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take the numbers of the session before."""
        self.numbers = dict(state_dict)

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Evaluate and draw, on the first process."""
        if self.held_out is None or not module.data.ends_epoch(trainer.global_step):
            return
        if trainer.is_global_zero:
            self.result = reconstruct_pairs(self.model, self.held_out)
            self.numbers = {"held_out_loss": self.result.loss, "held_out_zero_loss": self.result.zero_loss}
            module.add_numbers(self.numbers)
            epoch = -(-trainer.global_step // module.data.steps_per_epoch)
            self._publish(trainer, self._draw(module, f"epoch {epoch}"), module.config.out)

    def _draw(self, module: TrainModule, when: str) -> Image.Image:
        assert self.held_out is not None and self.result is not None
        numbers = f"held-out loss {self.result.loss:.3f} (flat-patch baseline: {self.result.zero_loss:.3f})"
        return pairs_sheet(self.model, self.held_out, self.result.output, f"{when}, {numbers}")

    def _publish(self, trainer: Trainer, sheet: Image.Image, out: Path) -> None:
        with atomic_write(out / "reconstruction.png") as temporary:
            sheet.save(temporary, format="png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                import numpy as np

                logger.experiment.add_image("reconstruction", np.asarray(sheet), trainer.global_step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image("reconstruction", [sheet], step=trainer.global_step)
