import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import videomac
from tests.train.runs import damaged, options, rows
from videomac.errors import UserError
from videomac.models.checkpoint import load_videomac
from videomac.train.config import PretrainConfig
from videomac.train.diagnostics import CollapseWatch, first_bad_module
from videomac.utils.io import read_torch

PRETRAIN_KEYS = {"loss", "online_loss", "target_loss", "consistency_loss", "pairs_per_second"}


@pytest.fixture(scope="module")
def run(clips, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, videomac.pretrain(**options(clips, out, keep_epochs=1))


def test_a_run_leaves_what_it_promises(run):
    out, metrics = run
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics.keys() >= PRETRAIN_KEYS | {"held_out_loss", "held_out_zero_loss", "skipped_videos", "skipped_pairs"}
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    made = {path for path in made if not path.startswith("tensorboard/")}
    assert made == {
        *("config.yaml", "metrics.csv", "metrics.json", "environment.json"),
        *("losses.png", "reconstruction.png"),
        *("checkpoints/last.ckpt", "checkpoints/epoch-0001.ckpt", "checkpoints/epoch-0002.ckpt"),
        *("backbone/model.safetensors", "backbone/config.json"),
    }
    for picture in ("losses.png", "reconstruction.png"):
        with Image.open(out / picture) as image:
            assert min(image.size) > 200


def test_the_curve_has_a_row_per_step_with_the_schedules_values(run):
    out, metrics = run
    table = rows(out)
    steps_per_epoch, epochs = 5, 2
    assert [int(row["step"]) for row in table] == list(range(1, steps_per_epoch * epochs + 1))
    assert [int(row["epoch"]) for row in table] == [1] * 5 + [2] * 5
    peak, warmup, total = 8e-2 * 16 / 256, 2, 10
    for done, row in enumerate(table):
        cosine = (1 + math.cos(math.pi * (done - warmup) / (total - warmup))) / 2
        assert float(row["learning_rate"]) == pytest.approx(peak * min(done / warmup, 1) * (done < warmup or cosine))
        momentum = 1 - (1 - 0.996) * (1 + math.cos(math.pi * done / total)) / 2
        assert float(row["momentum"]) == pytest.approx(momentum)
        parts = [float(row[f"{name}_loss"]) for name in ("online", "target", "consistency")]
        assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-5)
    assert [row["held_out_loss"] != "" for row in table] == [False] * 4 + [True] + [False] * 4 + [True]
    assert metrics["loss"] == pytest.approx(sum(float(row["loss"]) for row in table[5:]) / 5)
    assert metrics["held_out_loss"] == pytest.approx(float(table[-1]["held_out_loss"]))


def test_training_lowers_the_loss(run):
    first, *_, last = rows(run[0])
    assert float(last["online_loss"]) < float(first["online_loss"]) - 0.005


def test_tensorboard_gets_the_curves_and_a_sheet_every_epoch(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run[0] / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) >= {
        *("loss", "online_loss", "target_loss", "consistency_loss", "learning_rate", "momentum", "feature_std"),
        *("pairs_per_second", "data_wait_share", "held_out_loss"),
    }
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))
    assert [event.step for event in events.Images("reconstruction")] == [5, 10]


def test_the_exported_weights_are_timm_weights(run):
    out, _ = run
    plain = timm.create_model(f"local-dir:{out / 'backbone'}", pretrained=True, num_classes=0).eval()
    trained = load_videomac(out).online.encoder.eval()
    frames = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain.forward_features(frames), trained(frames))
    assert plain.state_dict().keys() == timm.create_model("test_convnext", num_classes=0).state_dict().keys()


def test_the_checkpoint_opens_without_running_code_and_knows_its_model(run):
    checkpoint = read_torch(run[0] / "checkpoints" / "last.ckpt")
    assert checkpoint["videomac"]["backbone"] == "test_convnext" and checkpoint["videomac"]["image_size"] == [64, 64]
    assert all(key.startswith("model.") for key in checkpoint["state_dict"])


def test_an_out_folder_with_a_run_is_refused_and_overwriting_spares_other_files(clips, tmp_path):
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "checkpoints" / "epoch-0099.ckpt").touch()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"already holds a run .* --overwrite"):
        videomac.pretrain(**options(clips, out))
    videomac.pretrain(**options(clips, out, epochs=1, held_out=0, overwrite=True))
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "checkpoints" / "epoch-0099.ckpt").exists()
    assert not (out / "reconstruction.png").exists(), "nothing was held out"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"image_size": 100}, "image_size 100x100 does not divide into patches of 32 pixels"),
        ({"patch_size": 48}, "48 must be a multiple of .* stride 32"),
        ({"global_batch_size": 512}, "holds 86 training pairs, fewer than one batch"),
        ({"global_batch_size": 6, "accumulate": 4}, "make it a multiple of 4"),
        ({"backbone": "test_convnxt"}, "unknown backbone 'test_convnxt'.*test_convnext"),
        ({"data": "nowhere"}, "nowhere"),
        ({"trainer": {"accelerater": "cpu"}}, "accelerater"),
        ({"trainer": {"accelerator": "abacus"}}, "the trainer refuses its options: .*abacus"),
        ({"init_from": "nowhere"}, "nowhere"),
        ({"frame_gap": 30}, "clip"),
        ({"resume": True}, "nothing to resume"),
    ],
)
def test_what_cannot_work_is_said_at_the_start_and_leaves_nothing(clips, tmp_path, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        videomac.pretrain(**options(clips, tmp_path / "run", **changed))
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_resuming_another_run_is_refused_naming_the_difference(run, clips, tmp_path):
    out, _ = run
    with pytest.raises(UserError, match=r"gamma, seed differ from its config\.yaml"):
        videomac.pretrain(**options(clips, out, keep_epochs=1, resume=True, seed=1, gamma=0.5))
    with pytest.raises(UserError, match="is finished, after 10 steps"):
        videomac.pretrain(**options(clips, out, keep_epochs=1, resume=True))
    (tmp_path / "fewer").mkdir()
    for clip in ("clip0.mp4", "clip1.mp4"):
        (tmp_path / "fewer" / clip).symlink_to(clips / clip)
    with pytest.raises(UserError, match="are not those that it was trained on"):
        videomac.pretrain(**options(tmp_path / "fewer", out, keep_epochs=1, resume=True))


def test_broken_videos_are_skipped_and_counted(clips, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for clip in clips.iterdir():
        (data / clip.name).symlink_to(clip)
    (data / "broken.mp4").write_bytes(b"no video at all")
    (data / "damaged.mp4").write_bytes(damaged((clips / "clip0.mp4").read_bytes()))
    metrics = videomac.pretrain(**options(data, tmp_path / "run", epochs=1, held_out=0))
    assert metrics["skipped_videos"] == 1
    assert metrics["skipped_pairs"] >= 1
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path / "run"))


def test_if_nothing_can_be_read_a_workers_error_is_still_one_sentence(clips, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "damaged.mp4").write_bytes(damaged((clips / "clip0.mp4").read_bytes()))
    flags = [
        f"--{key}={value}" for key, value in options(tmp_path / "data", tmp_path / "run").items() if key != "trainer"
    ]
    command = [sys.executable, "-m", "videomac", "pretrain", *flags, "--trainer.accelerator=cpu"]
    ended = subprocess.run([*command, "--workers=1", "--held_out=0"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "videomac: error: 100 pairs in a row could not be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_new_run_can_start_from_the_weights_of_another(run, clips, tmp_path):
    out, _ = run
    for source, name in ((out, "from_run"), (out / "backbone", "from_export")):
        videomac.pretrain(
            **options(clips, tmp_path / name, epochs=1, global_batch_size=64, base_lr=0.0, init_from=source)
        )
        started, given = load_videomac(tmp_path / name).online.encoder, load_videomac(out).online.encoder
        for key, value in started.state_dict().items():
            torch.testing.assert_close(value, given.state_dict()[key], rtol=0, atol=0, msg=key)
    with pytest.raises(UserError, match="init_from"):
        videomac.pretrain(**options(clips, tmp_path / "other", backbone="test_resnet", init_from=out))


def test_mixed_precision_trains_with_float32_losses(clips, tmp_path):
    metrics = videomac.pretrain(**options(clips, tmp_path / "run", global_batch_size=64, precision="bf16-mixed"))
    assert 0.5 < metrics["online_loss"] < 1.5
    state = read_torch(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(value.dtype == torch.float32 for value in state.values() if value.is_floating_point())


def test_the_released_codes_momentum_never_rises(clips, tmp_path):
    videomac.pretrain(**options(clips, tmp_path / "run", epochs=2, global_batch_size=64, preset="official"))
    assert {row["momentum"] for row in rows(tmp_path / "run")} == {"0.996"}


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(clips, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError) as stopped:
        videomac.pretrain(**options(clips, out, base_lr=1e30, warmup_epochs=0.2, save_steps=1))
    sentence = str(stopped.value)
    assert "optimizer step 3" in sentence and "the last good checkpoint is" in sentence and "base_lr" in sentence
    assert "\n" not in sentence
    checkpoint = read_torch(out / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert len(rows(out)) == 2


def test_the_first_bad_module_is_named():
    model = videomac.VideoMAC("test_convnext", decoder_width=16)
    pair, mask = torch.randn(2, 2, 3, 64, 64), model.sample_mask(2, (64, 64))
    stage = model.online.encoder.backbone.get_submodule("stages.2.blocks.1.norm")
    handle = stage.register_forward_hook(lambda module, inputs, output: output * float("inf"))
    assert "online.encoder.backbone.stages.2.blocks.1.norm" in first_bad_module(model, pair, mask)
    handle.remove()
    assert "finite" in first_bad_module(model, pair, mask)
    assert "frames of this batch" in first_bad_module(model, pair / 0, mask)
    with torch.no_grad():
        model.online.decoder.head.bias[0] = float("nan")
    assert "weights online.decoder.head.bias" in first_bad_module(model, pair, mask)


def test_collapse_is_told_once():
    watch = CollapseWatch()
    told = [watch.update(value, step) for step, value in enumerate([0.5, 1.0, 0.02, 0.009, 0.001])]
    assert told[:3] == [None] * 3 and told[4] is None
    assert told[3] is not None and "collapsed" in told[3] and "step 3" in told[3]


def test_accumulating_micro_batches_is_one_batch(clips, tmp_path):
    for accumulate in (1, 4):
        out = tmp_path / str(accumulate)
        videomac.pretrain(**options(clips, out, global_batch_size=32, precision="64-true", accumulate=accumulate))
    assert_same_state(tmp_path / "1", tmp_path / "4", tolerance=1e-10)
    assert len(rows(tmp_path / "4")) == len(rows(tmp_path / "1")) == 4


def test_two_processes_are_one(clips, tmp_path):
    small = options(clips, tmp_path / "1", global_batch_size=32, precision="64-true", held_out=0)
    videomac.pretrain(**small)
    flags = [f"--{key}={value}" for key, value in small.items() if key not in ("out", "trainer")]
    flags.append("--trainer.accelerator=cpu")
    subprocess.run(
        [sys.executable, "-m", "videomac", "pretrain", *flags, f"--out={tmp_path / '2'}", "--devices=2"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert_same_state(tmp_path / "1", tmp_path / "2", tolerance=1e-10)
    for one, two in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-6)


def assert_same_state(a: Path, b: Path, *, tolerance: float) -> None:
    """Weights of both networks agree, and have moved from where they started."""
    first, second = (read_torch(out / "checkpoints" / "last.ckpt")["state_dict"] for out in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.dtype == torch.float64 or not value.is_floating_point()
        torch.testing.assert_close(second[key], value, rtol=0, atol=tolerance, msg=key)
    torch.manual_seed(PretrainConfig("", "", "").seed)
    start = videomac.VideoMAC("test_convnext", mask_ratio=0.5, decoder_width=16).state_dict()
    moved = (first["model.online.decoder.head.weight"] - start["online.decoder.head.weight"]).abs().max()
    assert moved > 1e-3
