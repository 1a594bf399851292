"""What every training does in an optimizer step, whatever it trains: the base of `Pretraining` and `Finetuning`.

A step does not wait for the device. Its numbers are copied to the host while the next step is computed and read then;
whether they are finite is decided on the device, by the optimizer itself, which from the first bad step on changes
nothing any more.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim import Optimizer

from videomac.config import TrainConfig
from videomac.data.loader import TrainingData
from videomac.train import optim
from videomac.train.diagnostics import bad_step, first_bad_module
from videomac.utils.seeding import mixed_seed

REFUSED = "refused"
"""Name of the number that is not 0 if the optimizer refused a step because something in it was not finite."""


class StepNumbers:
    """The numbers of one optimizer step: what was known at once, and what is still on its way from the device.

    Args:
        step: number of the step, from 1.
        known: names and values.
        names: of the others.
        values: one for each name, on the device.
    """

    def __init__(self, step: int, known: Mapping[str, float], names: Sequence[str], values: Tensor) -> None:
        self.step, self.known, self._names = step, dict(known), list(names)
        self._arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            self._host = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
        else:
            self._host = values

    def read(self) -> dict[str, float]:
        """All numbers, waiting for them if need be."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return {**dict(zip(self._names, self._host.tolist(), strict=True)), **self.known}


class TrainModule(pl.LightningModule):
    """Loader, seed, learning rate and numbers of a step; a subclass adds the loss and what moves after the step.

    To Lightning a run is one pass over one long loader, whose sampler knows the epochs: so a run continues wherever its
    step counter stands.

    Args:
        model: what is trained.
        config: the options.
        data: what it is trained on.
    """

    unit = "samples"
    """What the numbers call a sample."""

    def __init__(self, model: nn.Module, config: TrainConfig, data: TrainingData) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.data = data
        self.metrics: dict[str, float] = {}
        """Numbers of the last optimizer step that were read, over all micro-batches and devices."""
        self.unread: deque[StepNumbers] = deque()
        """Steps whose numbers have not been read, the oldest first."""
        self._parts: list[dict[str, Tensor]] = []
        self._names: list[str] = []
        self._means: Tensor | None = None
        self._refused: Tensor | None = None
        self._wishes: dict[str, bool] = {}
        self._agreed: dict[str, bool] = {}

    # Before the step ------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        """The rest of the run, from the trainer's step on."""
        return self.data.loader(self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def step_seed(self, batch_idx: int) -> int:
        """The seed of a micro-batch: what is random in a step depends on the step alone, not on what came before."""
        micro_batch = batch_idx % self.config.micro_batches
        return mixed_seed(self.config.seed, self.trainer.global_step, self.global_rank, micro_batch)

    def weigh(self, batch: Mapping[str, Tensor], loss: Tensor) -> Tensor:
        """The loss times the share of the global batch that a micro-batch is, in units of an even share.

        Means over micro-batches and devices are taken of what has this weight; so each sample counts the same, and a
        step is the same however the batch is shared out.
        """
        weight = self._weight(batch)
        return loss if weight == 1 else loss * weight

    def _weight(self, batch: Mapping[str, Tensor]) -> float:
        shares = self.config.micro_batches * self.trainer.world_size
        return len(batch["skipped"]) * shares / self.config.global_batch_size

    def note(self, batch: Mapping[str, Tensor], **numbers: Tensor) -> None:
        """Keep the numbers of a micro-batch (`loss` among them), and how many samples stand in for unreadable ones."""
        skipped = batch["skipped"].sum() * self.config.micro_batches * self.trainer.world_size
        parts = {**{name: self.weigh(batch, number) for name, number in numbers.items()}, "skipped": skipped}
        self._parts.append({name: value.detach().float() for name, value in parts.items()})

    # The step -------------------------------------------------------------------------------------------------------

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Forward, backward and update with the schedule's learning rate; then what follows the weights."""
        step = self.trainer.global_step
        known = {"learning_rate": self._set_learning_rate(optimizer)}
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        known |= self.follow_weights(step)
        assert self._means is not None
        self.unread.append(StepNumbers(step + 1, known, self._names, self._means))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Between backward and update: gather the numbers, and refuse an update that is not finite.

        The decision is the same on every device, because gradients and means are. It holds for the rest of the run: no
        weight changes any more until the numbers are read, a step later, and the run stops. A gradient scaler (fp16)
        refuses steps by itself, some of them in a healthy run; there the loss alone tells.
        """
        self._gather()
        assert self._means is not None
        loss, plugin = self._means[self._names.index("loss")], self.trainer.precision_plugin
        scaled = isinstance(plugin, MixedPrecision) and plugin.scaler is not None
        self._refused = optim.refuse_unless_finite(optimizer, loss, self._refused, look_at_gradients=not scaled)
        self._means = torch.cat([self._means, self._refused[None].to(self._means)])
        self._names.append(REFUSED)

    def follow_weights(self, step: int) -> dict[str, float]:
        """Move what follows the weights after optimizer step `step` (from 0); return numbers known without reading."""
        return {}

    def _set_learning_rate(self, optimizer: Optimizer) -> float:
        """Give every parameter group the schedule's learning rate, times its own `lr_scale` if it has one."""
        config, data = self.config, self.data
        learning_rate = optim.learning_rate_at(
            self.trainer.global_step,
            data.total_steps,
            round(config.warmup(data.total_steps / data.steps_per_epoch) * data.steps_per_epoch),
            peak=optim.scaled_lr(config.base_lr, config.global_batch_size),
            minimum=config.min_lr,
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group.get("lr_scale", 1.0)
        return learning_rate

    def _gather(self) -> None:
        """Means of what was noted in this step, over its micro-batches and all devices; still on the device."""
        wishes = {f"wish {name}": float(wish) for name, wish in self._wishes.items()}
        self._names = [*self._parts[0], *wishes]
        means = torch.stack([torch.stack(list(part.values())) for part in self._parts]).mean(0)
        self._parts.clear()
        if wishes:
            means = torch.cat([means, *(means.new_full((1,), wish) for wish in wishes.values())])
        reduced: Any = self.trainer.strategy.reduce(means, reduce_op="mean")
        self._means = reduced

    # After the step -------------------------------------------------------------------------------------------------

    def read_numbers(self, *, wait: bool) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield step and numbers of the steps that are done; with `wait` the newest too, which the device may be at.

        Raises:
            UserError: a step was not finite; names the step, the module and the last good checkpoint.
        """
        while len(self.unread) > (0 if wait else 1):
            numbers = self.unread.popleft()
            values = numbers.read()
            if values.pop(REFUSED):
                where = self._first_bad_module(numbers.step)
                raise bad_step(numbers.step, values["loss"], where, self.config.out)
            self._agreed = {name: values.pop(f"wish {name}", 0.0) > 0 for name in self._wishes}
            values[f"skipped_{self.unit}"] = round(values.pop("skipped"))
            self.metrics = values
            yield numbers.step, values

    def add_numbers(self, numbers: Mapping[str, float]) -> None:
        """Add to the numbers of the step that was just taken, such as what an evaluation after it found."""
        self.unread[-1].known |= numbers

    def any_process(self, name: str, wish: bool) -> bool:
        """Whether some process has this wish, such as to stop; all processes get the same answer in the same step.

        Wishes travel with the numbers of the steps, so with several processes the answer is two steps old.
        """
        if self.trainer.world_size == 1:
            return wish
        self._wishes[name] = wish
        return self._agreed.get(name, False)

    def compute_again(self, batch: Any) -> None:
        """Run the forward pass of a micro-batch on the device, for `first_bad_module` to watch."""
        raise NotImplementedError

    def _first_bad_module(self, step: int) -> str:
        """What was not finite first in a step; the weights are still those that it found."""
        batches = self.data.batches(step - 1, self.trainer.global_rank, self.trainer.world_size)
        for batch_idx, batch in enumerate(batches):
            if not all(torch.isfinite(value).all() for value in batch.values() if value.is_floating_point()):
                return "the data of this batch is not finite"
            moved = self.transfer_batch_to_device(batch, self.device, 0)
            torch.manual_seed(self.step_seed(batch_idx))
            with self.trainer.precision_plugin.train_step_context():
                found = first_bad_module(self.model, functools.partial(self.compute_again, moved))
            if found is not None:
                return found
        return "the output of every module is finite, but not its gradient"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what tells whether the run is resumed on the same data."""
        checkpoint["data"] = self.data.identity
