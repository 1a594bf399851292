"""Pre-training: a thin LightningModule around `VideoMAC`, and the command.

To Lightning a run is one pass over one long loader, whose sampler knows the epochs: so a run continues wherever its
step counter stands. Whatever happens around a step (curves, checkpoints, pictures) is in `callbacks.py`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from videomac.errors import UserError
from videomac.models import ema
from videomac.models.checkpoint import load_videomac, mismatch, save_backbone
from videomac.models.resolve import find_weights, resolve
from videomac.models.videomac import VideoMAC, VideoMACOutput
from videomac.reconstruction.pairs import MaskedPairs
from videomac.train import optim
from videomac.train.callbacks import Throughput
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData
from videomac.train.module import TrainModule
from videomac.train.plan import settle_micro_batches
from videomac.train.plots import LOSSES, loss_curves
from videomac.train.resume import prepare_folder, require_out_dir, settle_resume
from videomac.train.scoring import CycleScore, load_footage
from videomac.train.trainer import at_work, build_run, fit, is_first_process
from videomac.train.validation import ReconstructionPreview, load_held_out
from videomac.utils.run_dir import in_words, read_rows, table, write_metrics

COLUMNS = (
    *("step", "epoch", *LOSSES, "feature_std"),
    *("learning_rate", "momentum", "skipped_pairs", "held_out_loss"),
)
"""Columns of `metrics.csv`: nothing that depends on the clock, so that equal runs leave equal files."""


class Pretraining(TrainModule):
    """One optimizer step of the method: losses, AdamW, learning rate, target network."""

    model: VideoMAC
    config: PretrainConfig
    unit = "pairs"

    def __init__(self, model: VideoMAC, config: PretrainConfig, data: PretrainingData) -> None:
        super().__init__(model, config, data)
        self._compiled = compiled(model) if config.compile else None

    def configure_optimizers(self) -> Optimizer:
        """AdamW; biases and norms do not decay."""
        return optim.adamw(optim.parameter_groups(self.model, self.config.weight_decay), self.config)

    def transfer_batch_to_device(self, batch: dict[str, Tensor], device: torch.device, dataloader_idx: int) -> Any:
        """All but the mask, which the encoder's tables are made of: read back from a GPU it would stall it."""
        moved = super().transfer_batch_to_device({**batch, "mask": batch["mask"][:0]}, device, dataloader_idx)
        return {**moved, "mask": batch["mask"]}

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one micro-batch."""
        torch.manual_seed(self.step_seed(batch_idx))
        # The mask is read here, on the host; with what is made of it the step is one graph that reads nothing back.
        prepared = self.model.prepare(batch["mask"], batch["pair"].device)
        output: VideoMACOutput = (self._compiled or self.model)(batch["pair"], prepared)
        self.note(batch, **{name: getattr(output, name) for name in (*LOSSES, "feature_std")})
        return self.weigh(batch, output.loss)

    def compute_again(self, batch: Mapping[str, Tensor]) -> None:
        """The forward pass of a micro-batch, losses included."""
        self.model(batch["pair"], batch["mask"])

    def follow_weights(self, step: int) -> dict[str, float]:
        """Move the target network."""
        config = self.config
        # The released code starts the momentum's schedule again in every epoch, so that it never leaves its start.
        end = 1.0 if config.preset == "paper" else config.momentum
        momentum = ema.momentum_at(step, self.data.total_steps, config.momentum, end)
        self.model.update_target(momentum)
        return {"momentum": momentum}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["videomac"] = {**self.model.arguments, "image_size": list(self.config.size)}


def pretrain(**options: Any) -> dict[str, Any]:
    """Pre-train a timm ConvNet on a folder of videos: `videomac.pretrain(data=..., backbone=..., out=..., ...)`.

    Args:
        **options: the fields of `PretrainConfig`, which are the flags of `videomac pretrain`.

    Returns:
        what the run leaves in `metrics.json`.

    Raises:
        UserError: an option that cannot work, unusable data, an out folder in use, a loss that is not finite.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the checkpoint is saved.
    """
    return run(PretrainConfig(**options))


def run(config: PretrainConfig) -> dict[str, Any]:
    """Run one pre-training; see `pretrain`."""
    with at_work(config):
        return _run(config)


def _run(config: PretrainConfig) -> dict[str, Any]:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if (numbers := settle_resume(config, RESULTS)) is not None:
        return numbers
    if is_first_process():
        require_out_dir(config, RUN_FILES)
    model = build_model(config)
    data = PretrainingData(config, model)
    settle_micro_batches(config, model, data)
    preview = ReconstructionPreview(model, _held_out(config, data, model))
    score = _score(config, model)
    session = build_run(config, data, [preview, score], COLUMNS, title="pre-training")
    if is_first_process():
        prepare_folder(config, data, RUN_FILES, RESULTS, session.resumed)
        data.write_skipped(config.out)
    if not fit(config, session, Pretraining(model, config, data)):
        return {}
    evaluated = {**preview.numbers, **score.numbers(data.total_steps)}
    metrics = finish(config, data, model, session.throughput, evaluated)
    print_summary(config, data, metrics)
    return metrics


RUN_FILES = (
    *("config.yaml", "metrics.csv", "metrics.json", "environment.json", "losses.png", "reconstruction.png"),
    *("cycle.csv", "cycle.png", "skipped.csv", "report.html", "checkpoints", "backbone", "tensorboard", "wandb"),
)
"""What a run makes in its out folder, and all that `overwrite` deletes."""

RESULTS = ("backbone/model.safetensors", "backbone/config.json", "losses.png", "environment.json", "metrics.json")
"""What `finish` makes of a run whose steps are done."""


def compiled(model: VideoMAC) -> Callable[..., VideoMACOutput]:
    """The model's forward pass as one graph, for prepared masks."""
    forward: Callable[..., VideoMACOutput] = torch.compile(model.forward, fullgraph=True, dynamic=False)
    return forward


def build_model(config: PretrainConfig) -> VideoMAC:
    """Build the networks from the seed, or from `init_from`.

    Raises:
        UserError: an unknown or unusable backbone, options that do not fit it, weights of another network.
    """
    model = _with_random_weights(config)
    if config.init_from is not None and not config.resume:
        _take_weights(model, config.init_from)
    # Convolutions read their weights as rows of a matrix, in this order.
    return model.to(memory_format=torch.channels_last)


def _with_random_weights(config: PretrainConfig) -> VideoMAC:
    torch.manual_seed(config.seed)
    method = inspect.signature(VideoMAC).parameters.keys()
    options = {field.name: getattr(config, field.name) for field in fields(config) if field.name in method}
    try:
        return VideoMAC(**options, backbone_args={"drop_path_rate": config.drop_path} if config.drop_path else None)
    except (ValueError, TypeError) as error:
        raise UserError(f"backbone {config.backbone}: {error}") from error


def _take_weights(model: VideoMAC, source: str) -> None:
    """Fill a model with weights: all of it from a pre-training, both encoders from a backbone alone."""
    path = find_weights(source)
    if path is not None and not (path / "config.json").is_file():
        given = load_videomac(path)
        _require_same(model, given, source)
        model.load_state_dict(given.state_dict())
        return
    with torch.random.fork_rng(devices=[]):
        backbone, _ = resolve(source, pretrained=True)
    for network in (model.online, model.target):
        own = network.encoder.backbone
        if problem := mismatch(own, backbone.state_dict()):
            theirs = getattr(backbone, "pretrained_cfg", {}).get("architecture", "another network")
            raise UserError(f"init_from {source} holds {theirs}, not {model.arguments['backbone']}: {problem}")
        own.load_state_dict(backbone.state_dict())


def _require_same(asked: VideoMAC, given: VideoMAC, source: str) -> None:
    """Refuse weights of a model of other shapes.

    Raises:
        UserError: names the first option that must be another one.
    """
    wanted, found = (
        {**model.arguments, "patch_size": model.patch_size, "output_stride": model.online.encoder.stride}
        for model in (asked, given)
    )
    for key in ("backbone", "preset", "output_stride", "patch_size", "decoder_width", "decoder_depth"):
        if wanted[key] != found[key]:
            raise UserError(
                f"init_from {source} was made with {key} {found[key]}, not {wanted[key]}: pass --{key} {found[key]}, "
                "or start from its backbone/ alone"
            )


def _held_out(config: PretrainConfig, data: PretrainingData, model: VideoMAC) -> MaskedPairs | None:
    if not data.held_out or not is_first_process():
        return None
    return load_held_out(data.held_out, config.held_out, config.frame_gap, config.size, model)


def _score(config: PretrainConfig, model: VideoMAC) -> CycleScore:
    """The score without labels, of the first process."""
    footage = load_footage(config) if is_first_process() else None
    random = model
    if footage is not None and config.init_from is not None and not config.resume:
        with torch.random.fork_rng(devices=[]):
            random = _with_random_weights(config)
    return CycleScore(model, random, footage)


def finish(
    config: PretrainConfig,
    data: PretrainingData,
    model: VideoMAC,
    throughput: Throughput,
    evaluated: Mapping[str, float],
) -> dict[str, Any]:
    """Export the online network, draw the curves, write `metrics.json`: means over the last epoch."""
    save_backbone(model, config.out / "backbone", name=config.backbone)
    loss_curves(config.out / "metrics.csv", config.out / "losses.png")
    rows = read_rows(config.out / "metrics.csv", last_step=data.total_steps)
    last_epoch = rows[-data.steps_per_epoch :]
    metrics: dict[str, Any] = {key: sum(float(row[key]) for row in last_epoch) / len(last_epoch) for key in LOSSES}
    metrics["pairs_per_second"] = throughput.rate
    metrics["data_wait_share"] = throughput.data_wait
    metrics |= evaluated
    metrics["steps"] = data.total_steps
    metrics["videos"] = data.num_videos
    metrics["skipped_videos"] = data.num_skipped
    metrics["skipped_pairs"] = round(sum(float(row["skipped_pairs"]) for row in rows))
    write_metrics(config.out, metrics)
    return metrics


def print_summary(config: PretrainConfig, data: PretrainingData, metrics: dict[str, Any]) -> None:
    """Say what came out, and what lies in the out folder."""
    length = f"{data.total_steps:,} steps, {data.total_steps / data.steps_per_epoch:.3g} epochs"
    print(f"\n{config.backbone}, pre-trained for {length}:")
    print(table([(in_words(key), value) for key, value in metrics.items()]))
    if (warning := little_learned(metrics)) is not None:
        print(f"\n{warning}")
    print(f"\nIn {config.out}:")
    made = [
        ("backbone/", "the weights, for timm.create_model('local-dir:...', pretrained=True)"),
        ("checkpoints/", "last.ckpt, for `videomac reconstruct` and --init_from"),
        ("losses.png", "the curves of metrics.csv"),
    ]
    if "held_out_loss" in metrics:
        made.append(("reconstruction.png", "held-out pairs"))
    if "cycle_score" in metrics:
        made.append(("cycle.png", f"the score without labels on {config.score_on}, numbers in cycle.csv"))
    if data.skipped:
        made.append(("skipped.csv", "what in the folder of videos was not used, and why"))
    print(table(made))


CLEARLY_BELOW = 0.95
"""The held-out loss of a run that learned to reconstruct is at most this share of the flat-patch baseline."""


def little_learned(metrics: Mapping[str, float]) -> str | None:
    """A warning if the held-out loss is not clearly below the flat-patch baseline; it does not judge the features."""
    loss, flat = metrics.get("held_out_loss"), metrics.get("held_out_zero_loss")
    if loss is None or flat is None or loss <= CLEARLY_BELOW * flat:
        return None
    return (
        f"The network has hardly learned to reconstruct: its held-out loss is {loss:.3f}, and painting every hidden "
        f"patch in one flat tone costs {flat:.3f}.\nTrain longer (--steps, --epochs), or raise --base_lr; for a CPU or "
        "little data take --recipe small. How good its features are, only an evaluation tells."
    )
