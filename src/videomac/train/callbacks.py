"""What happens around the optimizer steps of a run: curves, pictures, checkpoints, a clean stop, a progress bar.

All of them act after an optimizer step, in the order of `run_callbacks`: the numbers of the step are written before the
checkpoint that vouches for them.
"""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_warn

from videomac.config import TrainConfig
from videomac.train.diagnostics import CollapseWatch, require_finite_weights
from videomac.train.module import TrainModule
from videomac.utils.checkpoint_files import LAST, link_or_copy
from videomac.utils.io import atomic_write
from videomac.utils.run_dir import read_rows


class StepCallback(Callback):
    """A callback that acts after each optimizer step, not after each micro-batch."""

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Call `on_step` if this micro-batch completed an optimizer step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.on_step(trainer, module)

    def on_step(self, trainer: Trainer, module: Any) -> None:
        """Act after optimizer step number `trainer.global_step` (from 1)."""


class Throughput(StepCallback):
    """Measures samples per second and the share of time spent waiting for data.

    Last in the order, so that writing and drawing does not count as waiting.
    """

    def __init__(self) -> None:
        self.rate = self.data_wait = 0.0
        self._steps = 0
        self._began = self._ended = self._waited = 0.0

    def state_dict(self) -> dict[str, float]:
        """Keep both numbers in the checkpoint, for a run whose steps are done but not its results."""
        return {"rate": self.rate, "data_wait": self.data_wait}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Begin with those of the session before."""
        self.rate, self.data_wait = state_dict["rate"], state_dict["data_wait"]

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock."""
        self._ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Count the time since the last micro-batch as waiting."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note when the micro-batch ended."""
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        self._ended = time.perf_counter()

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Average over this session, without its first step, which waits for the workers to start."""
        now = time.perf_counter()
        self._steps += 1
        if self._steps == 1:
            self._began, self._waited = now, 0.0
        else:
            self.rate = (self._steps - 1) * module.config.global_batch_size / (now - self._began)
            self.data_wait = self._waited / (now - self._began)


class MetricsLogger(StepCallback):
    """Writes a row of `metrics.csv` and the loggers' scalars for each optimizer step, and watches for collapse."""

    def __init__(self, path: Path, speed: Throughput, columns: Sequence[str]) -> None:
        self.path, self.speed, self.columns = path, speed, columns
        self.watch = CollapseWatch()

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Drop rows that an interrupted run wrote after its last checkpoint."""
        if not trainer.is_global_zero:
            return
        rows = read_rows(self.path, last_step=trainer.global_step) if self.path.exists() else []
        with atomic_write(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Write the numbers of the steps before this one, whose own are still on their way."""
        self.write(trainer, module, wait=False)

    def write(self, trainer: Trainer, module: TrainModule, *, wait: bool) -> None:
        """Write and log the numbers of the steps that are done; with `wait`, of the newest too.

        Every process must call this; the first one writes.

        Raises:
            UserError: a step was not finite.
        """
        for step, numbers in module.read_numbers(wait=wait):
            if not trainer.is_global_zero:
                continue
            epoch = (step - 1) // module.data.steps_per_epoch + 1
            with self.path.open("r+", newline="", encoding="utf-8") as file:  # not "a", which makes a deleted file anew
                file.seek(0, os.SEEK_END)
                writer = csv.DictWriter(file, self.columns, extrasaction="ignore", lineterminator="\n")
                writer.writerow({"step": step, "epoch": epoch, **numbers})
            scalars = {**numbers, "epoch": epoch, f"{module.unit}_per_second": self.speed.rate}
            scalars["data_wait_share"] = self.speed.data_wait
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=step)
            spread = numbers.get("feature_std")
            if spread is not None and (warning := self.watch.update(spread, step)):
                rank_zero_warn(warning)


class Checkpoints(StepCallback):
    """Writes `checkpoints/last.ckpt` at epochs' ends, every so many minutes or steps, and keeps some epochs' files."""

    def __init__(self, config: TrainConfig, metrics_logger: MetricsLogger) -> None:
        self.folder = config.out / "checkpoints"
        self.minutes, self.steps, self.keep_epochs = config.save_minutes, config.save_steps, config.keep_epochs
        self.metrics_logger = metrics_logger
        self._saved_at = time.monotonic()
        self.saved_step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock."""
        self._saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Save if it is time to."""
        step, data = trainer.global_step, module.data
        epoch = step // data.steps_per_epoch if step % data.steps_per_epoch == 0 else 0
        late = self.minutes > 0 and time.monotonic() - self._saved_at > 60 * self.minutes
        late = module.any_process("save", late)
        if trainer.world_size > 1:  # a wish that is older than the last checkpoint has been fulfilled
            late = late and step - self.saved_step > 2
        if data.ends_epoch(step) or late or (self.steps and step % self.steps == 0):
            self.save(trainer, module)
        due = epoch and self.keep_epochs and epoch % self.keep_epochs == 0 and self.saved_step == step
        if due and trainer.is_global_zero:
            kept = self.folder / f"epoch-{epoch:04d}.ckpt"
            link_or_copy(self.folder / LAST, kept)

    def save(self, trainer: Trainer, module: TrainModule) -> None:
        """Replace `last.ckpt` at once, after the numbers of all its steps are written; every process must call this.

        Raises:
            UserError: the last step, or a weight, was not finite.
        """
        self.metrics_logger.write(trainer, module, wait=True)
        require_finite_weights(module, trainer.global_step)
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at, self.saved_step = time.monotonic(), trainer.global_step


class GracefulStop(StepCallback):
    """On Ctrl-C or SIGTERM: finish the optimizer step, save, and end the run; a second Ctrl-C ends it at once."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.received: signal.Signals | None = None
        self.stopped = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Take over both signals; the trainer's own handlers would not wait for the end of a step."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once, without saving")
        self.received = signal.Signals(number)
        # Not print(): the signal may have come in the middle of one.
        os.write(2, b"\nvideomac: finishing this step, then saving; Ctrl-C again stops at once\n")

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Save and stop if any process was told to."""
        if module.any_process("stop", self.received is not None):
            if self.checkpoints.saved_step != trainer.global_step:
                self.checkpoints.save(trainer, module)
            self.stopped = trainer.global_step < module.data.total_steps
            trainer.should_stop = True

    def teardown(self, trainer: Trainer, module: Any, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class TimeEstimate(StepCallback):
    """Says after the first steps how long the run will take, and, if that is long on a CPU, what is made for CPUs."""

    FIRST_STEPS = 5
    LONG = timedelta(days=2)

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Note where the run begins."""
        self._first_step = trainer.global_step

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Start the clock after the first step, which waits for the data, and tell after the last of the first."""
        done = trainer.global_step - self._first_step
        if done == 1:
            self._began = time.monotonic()
        left = module.data.total_steps - trainer.global_step
        if done != self.FIRST_STEPS or not trainer.is_global_zero or left < 10 * self.FIRST_STEPS:
            return
        whole = timedelta(seconds=round((time.monotonic() - self._began) / (done - 1) * left))
        sentence = f"the remaining {left:,} steps will take about {_rounded(whole)}"
        if whole > self.LONG and module.device.type == "cpu":
            sentence += "; --recipe small, for CPUs and little data, takes minutes to hours"
        say(trainer, sentence)


def say(trainer: Trainer, sentence: str) -> None:
    """Print a sentence, above the progress bar if there is one."""
    bar = trainer.progress_bar_callback
    print(sentence, flush=True) if bar is None else bar.print(sentence)


def _rounded(time_left: timedelta) -> str:
    """A time in the two units that matter."""
    minutes = max(1, round(time_left.total_seconds() / 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


class Bar(TQDMProgressBar):
    """One bar for the whole run: steps, time left, epoch, loss, samples per second, waiting for data."""

    def __init__(self, speed: Throughput, title: str) -> None:
        super().__init__()
        self.speed, self.title = speed, title

    def on_train_start(self, *args: Any) -> None:
        """Set the bar up; a run that is resumed within an epoch, as Lightning sees it, starts none."""
        super().on_train_start(*args)
        self._count_the_whole_run(args[0])

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Set the bar up again, after Lightning has reset it."""
        super().on_train_epoch_start(trainer, *args)
        self._count_the_whole_run(trainer)

    def _count_the_whole_run(self, trainer: Trainer) -> None:
        """Name the bar, give it the run's length, and let a resumed run's rate count from where it resumed."""
        bar = self.train_progress_bar
        bar.set_description(self.title, refresh=False)
        bar.initial = bar.n = bar.last_print_n = trainer.global_step * trainer.accumulate_grad_batches
        bar.total = trainer.max_steps * trainer.accumulate_grad_batches

    def get_metrics(self, trainer: Trainer, module: Any) -> dict[str, Any]:
        """Return what stands at the end of the bar."""
        return progress(trainer, module, self.speed) if module.metrics else {}


class ProgressLines(StepCallback):
    """The bar's stand-in where the output is no terminal: about twenty lines over the whole run."""

    def __init__(self, speed: Throughput) -> None:
        self.speed = speed

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock."""
        self._began, self._first_step = time.monotonic(), trainer.global_step

    def on_step(self, trainer: Trainer, module: TrainModule) -> None:
        """Print a line at the first step and after each twentieth of the run."""
        step, total = trainer.global_step, module.data.total_steps
        if not trainer.is_global_zero or (step > 1 and step * 20 // total == (step - 1) * 20 // total):
            return
        left = (time.monotonic() - self._began) / (step - self._first_step) * (total - step)
        shown = progress(trainer, module, self.speed) | {"left": timedelta(seconds=round(left))}
        print(f"step {step}/{total}, " + ", ".join(f"{key} {value}" for key, value in shown.items()), flush=True)


def progress(trainer: Trainer, module: TrainModule, speed: Throughput) -> dict[str, Any]:
    """Return what the bar and the lines show beside the steps."""
    return {
        "epoch": f"{(trainer.global_step - 1) // module.data.steps_per_epoch + 1}/{module.data.num_epochs}",
        **({"loss": f"{module.metrics['loss']:.3f}"} if module.metrics else {}),
        f"{module.unit}/s": f"{speed.rate:.1f}",
        "data wait": f"{speed.data_wait:.0%}",
    }
