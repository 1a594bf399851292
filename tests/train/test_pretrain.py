import csv
import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.layers import DropPath

import videomac
from tests.train.runs import assert_equal, command, damaged, options, rows
from videomac.errors import UserError
from videomac.models.checkpoint import load_backbone, load_videomac
from videomac.train import plan
from videomac.train.config import PretrainConfig
from videomac.train.pretrain import build_model
from videomac.utils.io import read_torch

PRETRAIN_KEYS = {"loss", "online_loss", "target_loss", "consistency_loss", "pairs_per_second"}


def test_a_run_leaves_what_it_promises(small_run):
    out, metrics = small_run, json.loads((small_run / "metrics.json").read_text())
    assert metrics.keys() >= PRETRAIN_KEYS | {"held_out_loss", "held_out_zero_loss", "skipped_videos", "skipped_pairs"}
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    made = {path for path in made if not path.startswith("tensorboard/")}
    assert made == {
        *("config.yaml", "metrics.csv", "metrics.json", "environment.json"),
        *("losses.png", "reconstruction.png"),
        *("checkpoints/last.ckpt", "checkpoints/previous.ckpt"),
        *("checkpoints/epoch-0001.ckpt", "checkpoints/epoch-0002.ckpt"),
        *("backbone/model.safetensors", "backbone/config.json"),
    }
    for picture in ("losses.png", "reconstruction.png"):
        with Image.open(out / picture) as image:
            assert min(image.size) > 200


def test_the_curve_has_a_row_per_step_with_the_schedules_values(small_run):
    out, metrics = small_run, json.loads((small_run / "metrics.json").read_text())
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
        assert float(row["loss"]) == pytest.approx(parts[0] + parts[1] + 0.5 * parts[2], rel=1e-5)
    assert [row["held_out_loss"] != "" for row in table] == [False] * 4 + [True] + [False] * 4 + [True]
    assert metrics["loss"] == pytest.approx(sum(float(row["loss"]) for row in table[5:]) / 5)
    assert metrics["held_out_loss"] == pytest.approx(float(table[-1]["held_out_loss"]))


def test_training_lowers_the_loss(small_run):
    first, *_, last = rows(small_run)
    assert float(last["online_loss"]) < float(first["online_loss"]) - 0.005


def test_tensorboard_gets_the_curves_and_a_sheet_every_epoch(small_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(small_run / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) >= {
        *("loss", "online_loss", "target_loss", "consistency_loss", "learning_rate", "momentum", "feature_std"),
        *("pairs_per_second", "data_wait_share", "held_out_loss"),
    }
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))
    assert [event.step for event in events.Images("reconstruction")] == [5, 10]


def test_the_exported_weights_are_timm_weights(small_run):
    plain = timm.create_model(f"local-dir:{small_run / 'backbone'}", pretrained=True, num_classes=0).eval()
    trained = load_videomac(small_run).online.encoder.eval()
    frames = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(plain.forward_features(frames), trained(frames))
    assert plain.state_dict().keys() == timm.create_model("test_convnext", num_classes=0).state_dict().keys()


def test_the_checkpoint_opens_without_running_code_and_knows_its_model(small_run):
    checkpoint = read_torch(small_run / "checkpoints" / "last.ckpt")
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
        ({"output_stride": 16, "patch_size": 24}, "24 must be a multiple of .* stride 16"),
        ({"output_stride": 16, "backbone": "densenet121"}, "timm does not build densenet121 with output_stride 16"),
        ({"global_batch_size": 512}, "holds 86 training pairs, fewer than one batch: .*--recipe small"),
        ({"global_batch_size": 2, "accumulate": 4}, "too small for 1 process.es. .*: make it 4 or more"),
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


def test_resuming_another_run_is_refused_naming_the_difference(small_run, clips, tmp_path):
    same = {"gamma": 0.5, "keep_epochs": 1, "resume": True}
    with pytest.raises(UserError, match=r"gamma, seed differ from its config\.yaml"):
        videomac.pretrain(**options(clips, small_run, **{**same, "seed": 1, "gamma": 1.0}))
    with pytest.raises(UserError, match="is finished, after 10 steps"):
        videomac.pretrain(**options(clips, small_run, **same))
    (tmp_path / "fewer").mkdir()
    for clip in ("clip0.mp4", "clip1.mp4"):
        (tmp_path / "fewer" / clip).symlink_to(clips / clip)
    with pytest.raises(UserError, match="are not those that it was trained on"):
        videomac.pretrain(**options(tmp_path / "fewer", small_run, **same))


@pytest.fixture(scope="module")
def partly_damaged(clips, tmp_path_factory) -> Path:
    """`clips`, a file that is no video, and one that opens but cannot be decoded."""
    data = tmp_path_factory.mktemp("partly_damaged")
    for clip in clips.iterdir():
        (data / clip.name).symlink_to(clip)
    (data / "broken.mp4").write_bytes(b"no video at all")
    (data / "damaged.mp4").write_bytes(damaged((clips / "clip0.mp4").read_bytes()))
    return data


def test_broken_videos_are_skipped_and_counted(partly_damaged, tmp_path):
    metrics = videomac.pretrain(**options(partly_damaged, tmp_path, epochs=1, held_out=0))
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["skipped_videos"] == 1 and metrics["videos"] == 5
    with (tmp_path / "skipped.csv").open(newline="") as file:
        (skipped,) = csv.DictReader(file)
    assert skipped["name"].endswith(".mp4") and skipped["reason"] and str(partly_damaged) not in skipped["reason"]
    # Pairs are numbered video by video: the damaged one's are the last 23 of 115, 112 of which make 7 batches.
    assert 20 <= metrics["skipped_pairs"] <= 23
    assert metrics["skipped_pairs"] == sum(int(row["skipped_pairs"]) for row in rows(tmp_path))
    assert all(math.isfinite(float(row["loss"])) for row in rows(tmp_path))


def test_if_nothing_can_be_read_a_workers_error_is_still_one_sentence(clips, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "damaged.mp4").write_bytes(damaged((clips / "clip0.mp4").read_bytes()))
    words = command(tmp_path / "data", tmp_path / "run", workers=1, held_out=0)
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "videomac: error: 100 pairs in a row could not be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_new_run_can_start_from_the_weights_of_another(small_run, clips, tmp_path):
    timms = f"local-dir:{small_run / 'backbone'}"  # timm's own way to weights, which a name with a tag takes too
    for source, name in ((small_run, "run"), (small_run / "backbone", "export"), (timms, "timm")):
        videomac.pretrain(
            **options(clips, tmp_path / name, epochs=1, global_batch_size=64, base_lr=0.0, init_from=source)
        )
        started, given = load_videomac(tmp_path / name).online.encoder, load_videomac(small_run).online.encoder
        for key, value in started.state_dict().items():
            torch.testing.assert_close(value, given.state_dict()[key], rtol=0, atol=0, msg=key)


@pytest.mark.parametrize(
    ("source", "changed", "sentence"),
    [
        (
            "",
            {"backbone": "test_resnet"},
            "was made with backbone test_convnext, not test_resnet: pass --backbone",
        ),
        (
            "",
            {"decoder_width": 32},
            "was made with decoder_width 16, not 32: pass --decoder_width 16, or start",
        ),
        ("backbone", {"backbone": "test_resnet"}, "holds test_convnext, not test_resnet: .* is missing"),
    ],
)
def test_weights_of_another_network_are_refused_in_a_sentence(small_run, clips, tmp_path, source, changed, sentence):
    with pytest.raises(UserError, match=f"init_from .*{sentence}") as refused:
        videomac.pretrain(**options(clips, tmp_path / "other", init_from=small_run / source, **changed))
    assert len(str(refused.value).replace(str(small_run), "RUN")) < 290


def test_a_finer_stride_is_kept_by_the_run_and_may_not_change(small_run, clips, tmp_path):
    changed = {"output_stride": 16, "epochs": 1, "global_batch_size": 64, "base_lr": 0.0, "held_out": 2}
    out = tmp_path / "run"
    videomac.pretrain(**options(clips, out, **changed, init_from=small_run / "backbone"))  # weights of any stride
    found, given = load_backbone(out), load_backbone(small_run)
    torch.testing.assert_close(found.state_dict(), given.state_dict(), rtol=0, atol=0)
    assert found.forward_features(torch.zeros(1, 3, 64, 96)).shape[-2:] == (4, 6)
    assert load_videomac(out).patch_size == 32
    with pytest.raises(UserError, match=r"output_stride differ from its config\.yaml"):
        videomac.pretrain(**options(clips, out, **{**changed, "output_stride": 8}, resume=True))
    with pytest.raises(UserError, match="was made with output_stride 16, not 32: pass --output_stride 16, or start"):
        videomac.pretrain(**options(clips, tmp_path / "other", init_from=out))


def test_a_patch_that_is_the_default_fits_one_that_was_given(small_run, clips, tmp_path):
    changed = {"epochs": 1, "global_batch_size": 64, "held_out": 0, "patch_size": 32, "init_from": small_run}
    videomac.pretrain(**options(clips, tmp_path / "run", **changed))


@pytest.mark.parametrize(
    ("precision", "computed", "kept"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.bfloat16, torch.float32),
        ("64-true", torch.float64, torch.float64),
    ],
)
def test_precision_is_that_of_the_layers_and_losses_stay_in_float32(
    clips, tmp_path, monkeypatch, precision, computed, kept
):
    layers, losses, within = set(), set(), []
    monkeypatch.setattr(plan, "saved_bytes", lambda *_: 0)  # whose forward pass is no step

    def enter(module, inputs):
        if isinstance(module, videomac.VideoMAC):
            within.append(module)

    def leave(module, inputs, output):
        if within and isinstance(module, torch.nn.Conv2d | torch.nn.Linear):  # not a pass of the encoder alone
            layers.add(output.dtype)
        elif isinstance(module, videomac.VideoMAC):
            within.pop()
            losses.update({output.loss.dtype, output.online_loss.dtype, output.consistency_loss.dtype})

    hooks = torch.nn.modules.module
    handles = [hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave)]
    try:
        changed = {"epochs": 1, "global_batch_size": 64, "held_out": 0, "precision": precision}
        metrics = videomac.pretrain(**options(clips, tmp_path, **changed))
    finally:
        for handle in handles:
            handle.remove()
    assert layers == {computed} and losses == {kept}
    assert 0.5 < metrics["online_loss"] < 1.5
    state = read_torch(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(value.dtype == kept for value in state.values() if value.is_floating_point())


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet"])
def test_drop_path_rises_to_its_rate_in_the_online_network(backbone):
    def rates(drop_path: float) -> list[float]:
        model = build_model(PretrainConfig("data", backbone, "out", decoder_width=16, drop_path=drop_path))
        return [module.drop_prob for module in model.online.modules() if isinstance(module, DropPath)]

    assert not any(rates(0.0))
    rising = rates(0.3)
    assert rising == sorted(rising) and len(rising) > 1
    assert rising[-1] == pytest.approx(0.3) and rising[0] < 0.3


def test_the_released_codes_momentum_never_rises(clips, tmp_path):
    videomac.pretrain(**options(clips, tmp_path / "run", epochs=2, global_batch_size=64, preset="official"))
    assert {row["momentum"] for row in rows(tmp_path / "run")} == {"0.996"}


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(clips, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(UserError) as stopped:
        videomac.pretrain(**options(clips, out, base_lr=1e12, warmup_epochs=0.2, save_steps=1))
    sentence = str(stopped.value)
    assert "optimizer step 3" in sentence and "the last good checkpoint is" in sentence and "base_lr" in sentence
    assert "\n" not in sentence
    checkpoint = read_torch(out / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 2
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert len(rows(out)) == 2


def test_accumulating_micro_batches_is_one_batch(partly_damaged, tmp_path):
    small = {"global_batch_size": 32, "precision": "64-true", "held_out": 0}
    for accumulate in (1, 4, 5):  # five micro-batches of seven or six pairs, which weigh as much as they hold
        videomac.pretrain(**options(partly_damaged, tmp_path / str(accumulate), accumulate=accumulate, **small))
    assert_same_run(tmp_path / "1", tmp_path / "4")
    assert_same_run(tmp_path / "1", tmp_path / "5")


def test_two_processes_are_one(partly_damaged, tmp_path):
    small = {"global_batch_size": 32, "precision": "64-true", "held_out": 0}
    videomac.pretrain(**options(partly_damaged, tmp_path / "1", **small))
    subprocess.run(command(partly_damaged, tmp_path / "2", devices=2, **small), check=True, stdout=subprocess.DEVNULL)
    assert_same_run(tmp_path / "1", tmp_path / "2")


def assert_same_run(a: Path, b: Path) -> None:
    """Weights of both networks agree, and have moved from where they started; so do the curves and what was skipped."""
    assert_same_state(a, b, tolerance=1e-10)
    for one, two in zip(rows(a), rows(b), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-6)
        assert one["skipped_pairs"] == two["skipped_pairs"]
    assert sum(int(row["skipped_pairs"]) for row in rows(a)) > 20


def assert_same_state(a: Path, b: Path, *, tolerance: float) -> None:
    """Weights of both networks agree, and have moved from where they started."""
    first, second = (read_torch(out / "checkpoints" / "last.ckpt")["state_dict"] for out in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.dtype == torch.float64 or not value.is_floating_point()
        torch.testing.assert_close(second[key], value, rtol=0, atol=tolerance, msg=key)
    torch.manual_seed(PretrainConfig("data", "x", "out").seed)
    start = videomac.VideoMAC("test_convnext", mask_ratio=0.5, decoder_width=16).state_dict()
    moved = (first["model.online.decoder.head.weight"] - start["online.decoder.head.weight"]).abs().max()
    assert moved > 1e-3


def test_a_run_that_was_ended_before_its_results_gets_them(small_run, clips, tmp_path, capsys):
    """As a kill after the last checkpoint leaves it; what was measured in the session before is not lost."""
    same = {"gamma": 0.5, "keep_epochs": 1, "resume": True}
    for missing in (("metrics.json", "environment.json", "losses.png", "backbone"), ("backbone",)):
        out = tmp_path / str(len(missing))
        shutil.copytree(small_run, out)
        for name in missing:
            shutil.rmtree(out / name) if name == "backbone" else (out / name).unlink()
        metrics = videomac.pretrain(**options(clips, out, **same))
        assert "making what is missing: backbone/model.safetensors" in capsys.readouterr().out
        wanted = json.loads((small_run / "metrics.json").read_text())
        clock = {"pairs_per_second", "data_wait_share"}
        assert {k: v for k, v in metrics.items() if k not in clock} == {
            k: v for k, v in wanted.items() if k not in clock
        }
        assert metrics["pairs_per_second"] > 0 and metrics == json.loads((out / "metrics.json").read_text())
        for name in ("metrics.csv", "backbone/model.safetensors", "reconstruction.png"):
            assert (out / name).read_bytes() == (small_run / name).read_bytes(), name
        with pytest.raises(UserError, match="is finished, after 10 steps"):
            videomac.pretrain(**options(clips, out, **same))


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(small_run, clips, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(small_run, out)
    last = out / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    videomac.pretrain(**options(clips, out, gamma=0.5, keep_epochs=1, resume=True))
    assert "last.ckpt is damaged" in caplog.text and "previous.ckpt, the checkpoint before it" in caplog.text
    assert (out / "metrics.csv").read_bytes() == (small_run / "metrics.csv").read_bytes()
    assert_equal(read_torch(last)["state_dict"], read_torch(small_run / "checkpoints" / "last.ckpt")["state_dict"], "")


def test_a_run_that_ended_before_its_first_checkpoint_is_started_again(small_run, clips, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(small_run, out, ignore=shutil.ignore_patterns("*.ckpt", "backbone", "metrics.json"))
    changed = {"gamma": 0.5, "epochs": 1, "global_batch_size": 64, "held_out": 0}
    with pytest.raises(UserError, match=r"had not come to its first checkpoint\): leave out --resume to start"):
        videomac.pretrain(**options(clips, out, **changed, resume=True))
    videomac.pretrain(**options(clips, out, **changed))
    assert (out / "metrics.json").is_file() and len(rows(out)) == 1
