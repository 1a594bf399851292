"""`videomac finetune`: what a run leaves, that it learns, resumes and refuses."""

import csv
import json
import math
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch.nn import functional as F

import videomac
from tests.classify.folders import write_images
from tests.classify.networks import build
from tests.train.runs import assert_equal, run_until
from videomac import cli
from videomac.classify import finetune
from videomac.classify.finetune import Finetuning
from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import save_backbone
from videomac.utils.io import read_torch


def options(data: Path, out: Path, **changed: Any) -> dict[str, Any]:
    """Two epochs of three steps, in seconds."""
    return {
        **{"data": data, "backbone": "test_convnext", "out": out, "image_size": 32, "epochs": 2},
        **{"global_batch_size": 8, "base_lr": 6e-2, "ema_decay": 0.5, "drop_path": 0.2, "workers": 0},
        **{"trainer": {"accelerator": "cpu"}, **changed},
    }


def flags(data: Path, out: Path, **changed: Any) -> list[str]:
    values = options(data, out, **changed)
    del values["trainer"]
    words = [f"--{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", "videomac", "finetune", *words, "--trainer.accelerator=cpu"]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, videomac.finetune(**options(images, out))


def test_a_run_leaves_what_it_promises(run):
    out, metrics = run
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics["classes"] == 3 and metrics["train_images"] == 24 and metrics["val_images"] == 12
    assert metrics["skipped_images"] == metrics["skipped_val_images"] == 0
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {path for path in made if not path.startswith("tensorboard/")} == {
        *("config.yaml", "metrics.csv", "metrics.json", "environment.json"),
        *("classes.csv", "curves.png", "confusion.png"),
        *("checkpoints/last.ckpt", "checkpoints/previous.ckpt"),
        *("classifier/model.safetensors", "classifier/config.json"),
    }
    for picture in ("curves.png", "confusion.png"):
        with Image.open(out / picture) as image:
            assert min(image.size) > 200


def test_the_curve_has_the_schedules_values_and_both_networks_accuracy(run):
    out, metrics = run
    table = rows(out)
    assert [int(row["step"]) for row in table] == [1, 2, 3, 4, 5, 6]
    peak, warmup = 6e-2 * 8 / 256, round(3 * 2 * 2 / 15)
    for done, row in enumerate(table):
        cosine = 1e-6 + (peak - 1e-6) * (1 + math.cos(math.pi * (done - warmup) / (6 - warmup))) / 2
        assert float(row["learning_rate"]) == pytest.approx(peak * done / warmup if done < warmup else cosine)
    for key in ("top1", "top5", "val_loss", "ema_top1", "ema_top5", "ema_val_loss"):
        assert [row[key] != "" for row in table] == [False, False, True] * 2
        assert float(table[-1][key]) == metrics[key]
    assert metrics["ema_top1"] != metrics["top1"] or metrics["ema_val_loss"] != metrics["val_loss"]
    assert float(table[0]["loss"]) == pytest.approx(math.log(3), abs=1e-3)  # the head starts even


def test_the_classifier_opens_in_timm_and_has_the_accuracy_that_is_reported(run, images):
    out, metrics = run
    model = timm.create_model(f"local-dir:{out / 'classifier'}", pretrained=True).eval()
    config = json.loads((out / "classifier" / "config.json").read_text())
    assert config["label_names"] == ["blue", "green", "red"] and config["num_classes"] == 3
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    logits, labels = [], []
    for label, name in enumerate(config["label_names"]):
        for file in sorted((images / "val" / name).iterdir()):
            with torch.inference_mode(), Image.open(file) as image:
                logits.append(model(transform(image.convert("RGB"))[None])[0])
            labels.append(label)
    logits, labels = torch.stack(logits), torch.tensor(labels)
    prefix = "" if metrics["classifier"] == "last" else "ema_"
    assert (logits.argmax(1) == labels).float().mean().item() == pytest.approx(metrics[f"{prefix}top1"])
    assert F.cross_entropy(logits, labels).item() == pytest.approx(metrics[f"{prefix}val_loss"], rel=1e-5)


def test_it_learns(images, tmp_path):
    metrics = videomac.finetune(
        **options(images, tmp_path / "run", epochs=6, mixup=0, cutmix=0, random_erasing=0, drop_path=0)
    )
    assert metrics["top1"] > 0.9


def test_the_moving_average_is_that_of_the_weights_after_each_step(images, tmp_path):
    class Recorded(Finetuning):
        def optimizer_step(self, *args, **kwargs):
            if not hasattr(self, "history"):
                self.history = [self.model.head.fc.weight.detach().clone()]
            super().optimizer_step(*args, **kwargs)
            self.history.append(self.model.head.fc.weight.detach().clone())

    import videomac.classify.finetune as module

    made = []
    original, module.Finetuning = module.Finetuning, lambda *args: made.append(Recorded(*args)) or made[0]
    try:
        videomac.finetune(**options(images, tmp_path / "run", epochs=1, accumulate=2))
    finally:
        module.Finetuning = original
    average, *later = made[0].history
    assert len(later) == 3
    for weights in later:
        average = 0.5 * average + 0.5 * weights
    torch.testing.assert_close(made[0].ema.module.head.fc.weight, average)


def test_a_classifier_is_a_backbone_again(run, images, tmp_path):
    classifier = run[0] / "classifier"
    network = build(f"local-dir:{classifier}", num_classes=0)
    state, saved = network.model.state_dict(), load_file(classifier / "model.safetensors")
    assert len(state) == len(saved) - 2 and all(torch.equal(saved[key], value) for key, value in state.items())
    probed = videomac.probe(
        data=images, backbone=f"local-dir:{classifier}", out=tmp_path / "probe", image_size=32, workers=0, k=5
    )
    assert probed["channels"] == network.model.num_features


def test_a_classifier_keeps_a_finer_stride(images, tmp_path, monkeypatch):
    """With any timm: those before 1.0.31 write down what they are given, and nothing else."""

    def save(model, folder, model_args=None, **settings):
        save_for_hf(model, folder, **settings)
        config = json.loads((Path(folder) / "config.json").read_text())
        (Path(folder) / "config.json").write_text(json.dumps({**config, "model_args": model_args or {}}))

    monkeypatch.setattr(finetune, "save_for_hf", save)
    fine = create_backbone("test_convnext", output_stride=16)
    save_backbone(fine, tmp_path / "fine", name="test_convnext", model_args={"output_stride": 16})
    videomac.finetune(**options(images, tmp_path / "run", backbone=str(tmp_path / "fine"), epochs=1, ema_decay=0.0))
    model = timm.create_model(f"local-dir:{tmp_path / 'run' / 'classifier'}", pretrained=True)
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[-2:] == (4, 4)


def test_weights_of_the_released_code_keep_their_stage_norms(images, tmp_path):
    model = videomac.VideoMAC("test_convnext", decoder_width=16, preset="official")
    (tmp_path / "checkpoints").mkdir()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "videomac": model.arguments}, tmp_path / "checkpoints" / "last.ckpt")
    videomac.finetune(**options(images, tmp_path / "run", backbone=str(tmp_path), epochs=1, precision="bf16-mixed"))
    trained = read_torch(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"]
    assert "model.stage_norms.3.weight" in trained and "ema.module.stage_norms.3.weight" in trained
    assert not (tmp_path / "run" / "classifier").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupted_run_resumes_to_the_last_bit(run, images, tmp_path):
    whole, out = run[0], tmp_path / "run"
    status, errors = run_until(flags(images, out), "step 4/6", signal.SIGTERM)
    step = read_torch(out / "checkpoints" / "last.ckpt")["global_step"]
    assert status == 130 and 0 < step < 6
    assert "videomac finetune --config" in errors and "--resume" in errors and "Traceback" not in errors
    assert cli.parse("finetune", ["--config", str(out / "config.yaml"), "--resume"]).resume
    videomac.finetune(**options(images, out, resume=True))
    assert (out / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    weights = [load_file(folder / "classifier" / "model.safetensors") for folder in (out, whole)]
    assert_equal(*weights, "classifier")
    states = [read_torch(folder / "checkpoints" / "last.ckpt") for folder in (out, whole)]
    assert any(key.startswith("ema.") for key in states[0]["state_dict"])
    for part in ("global_step", "state_dict", "optimizer_states", "data", "classes"):
        assert_equal(states[0][part], states[1][part], part)


@pytest.mark.slow
def test_two_processes_are_one(images, tmp_path):
    """Without mixing, which timm does within each process's images."""
    small = {"precision": "64-true", "mixup": 0, "cutmix": 0, "drop_path": 0, "epochs": 1}
    videomac.finetune(**options(images, tmp_path / "1", **small))
    subprocess.run([*flags(images, tmp_path / "2", **small), "--devices=2"], check=True, stdout=subprocess.DEVNULL)
    first, second = (read_torch(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in "12")
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=0, atol=1e-9)
    for one, two in zip(rows(tmp_path / "1"), rows(tmp_path / "2"), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-6)
        for key in ("top1", "top5", "val_loss", "ema_top1"):
            assert one[key] == two[key] or float(one[key]) == pytest.approx(float(two[key]), rel=1e-6)


def test_an_image_that_cannot_be_read_is_reported_skipped_and_counted(tmp_path, caplog):
    def change(root: Path) -> None:
        (root / "train" / "red" / "0.png").write_bytes(b"no picture")
        for name in ("0.png", "1.png"):  # cut short, and empty
            file = root / "val" / "blue" / name
            file.write_bytes(file.read_bytes()[:200] if name == "0.png" else b"")

    root = write_images(tmp_path / "data")
    change(root)
    metrics = videomac.finetune(**options(root, tmp_path / "run"))
    assert metrics["skipped_images"] == 2 and metrics["skipped_val_images"] == 2 and metrics["val_images"] == 10
    lines = (tmp_path / "run" / "classes.csv").read_text().splitlines()
    table = {row["class"]: row for row in csv.DictReader(lines)}
    assert table["blue"]["images"] == "2" and table["red"]["images"] == "4"
    reports = [record.getMessage() for record in caplog.records]
    for file in ("train/red/0.png", "val/blue/0.png", "val/blue/1.png"):
        assert sum(f"{file}: " in report for report in reports) == 1


class Harmful:
    def __reduce__(self):
        return os.system, ("echo harmed",)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"backbone": "test_convnxt"}, "unknown backbone 'test_convnxt': did you mean"),
        ({"backbone": "runs/none"}, "runs/none does not exist"),
        (
            {"backbone": "test_resnet3", "global_batch_size": 25},
            "unknown backbone|holds 24 images, fewer than one batch",
        ),
        ({"global_batch_size": 25}, "holds 24 images, fewer than one batch: lower global_batch_size"),
        ({"global_batch_size": 6, "accumulate": 2}, "mix images in pairs"),
        ({"auto_augment": "rnd-m9"}, "auto_augment 'rnd-m9' is no policy of timm"),
        ({"layer_decay": 0}, "layer_decay must be above 0"),
        ({"ema_decay": 1}, "ema_decay must be at least 0 and below 1"),
        ({"resume": True}, "nothing to resume"),
        ({"base_lr": 1e12, "warmup_epochs": 0}, "the loss is nan at optimizer step 2: .* a lower --base_lr"),
        ({"backbone": "test_vit", "trainer": {"acelerator": "cpu"}}, "the trainer refuses its options"),
    ],
)
def test_options_that_cannot_work_are_refused(images, tmp_path, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        videomac.finetune(**options(images, tmp_path / "run", **changed))


def test_weights_of_another_network_or_with_code_in_them_are_refused(images, tmp_path):
    save_backbone(timm.create_model("test_convnext", num_classes=0), tmp_path / "a", name="test_convnext")
    weights = load_file(tmp_path / "a" / "model.safetensors")
    save_file({f"blocks.{key}": value for key, value in weights.items()}, tmp_path / "a" / "model.safetensors")
    with pytest.raises(UserError, match=r"does not hold a test_convnext: stem\.0\.weight is missing"):
        videomac.finetune(**options(images, tmp_path / "run", backbone=str(tmp_path / "a")))
    with (tmp_path / "code.pth").open("wb") as file:
        pickle.dump({"state_dict": Harmful()}, file, protocol=2)
    with pytest.raises(UserError, match="could run code and are not loaded"):
        videomac.finetune(**options(images, tmp_path / "run", backbone=str(tmp_path / "code.pth")))
    torch.save({"state_dict": Harmful()}, tmp_path / "code.pth")
    with pytest.raises(UserError, match="which could run code and are not loaded"):
        videomac.finetune(**options(images, tmp_path / "run", backbone=str(tmp_path / "code.pth")))
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_left_alone(run, images, tmp_path, capsys):
    with pytest.raises(UserError, match="already holds a run"):
        videomac.finetune(**options(images, run[0]))
    with pytest.raises(UserError, match="is finished, after 6 steps"):
        videomac.finetune(**options(images, run[0], resume=True))
    with pytest.raises(UserError, match="other settings: epochs, seed"):
        videomac.finetune(**options(images, run[0], resume=True, epochs=3, seed=1))
    other = write_images(tmp_path / "other", train=9)
    with pytest.raises(UserError, match=r"the images in .* are not those that it was trained on \(36 then, 39 now"):
        videomac.finetune(**options(other, run[0], resume=True))
    with pytest.raises(SystemExit) as exit_:
        cli.main(flags(images, run[0])[3:])
    assert exit_.value.code == 2 and capsys.readouterr().err.startswith("videomac: error: ")


def commands_of_the_page() -> list[list[str]]:
    page = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_every_command_of_the_page_runs_on_small_images(images, tmp_path, monkeypatch):
    """As they stand, but for the images, the weights, and what makes them long."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    save_backbone(timm.create_model("test_convnext", num_classes=0), Path("runs/mine"), name="test_convnext")
    Path("images").symlink_to(images)
    Path("imagenet-1k").symlink_to(images)
    (tmp_path / "configs").symlink_to(root / "configs")
    small = {
        "finetune": ["--epochs=1", "--warmup_epochs=0", "--global_batch_size=8", "--accumulate=1", "--image_size=32"],
        "probe": ["--k=5", "--image_size=32"],
    }
    small["finetune"] += ["--devices=1", "--precision=32-true", "--trainer.accelerator=cpu"]
    done = []
    for _, name, *words in commands_of_the_page():
        with pytest.raises(SystemExit) as exit_:
            cli.main([name, *words, *small[name], "--workers=0"])
        assert exit_.value.code == 0, words
        out = Path(words[words.index("--out") + 1])
        done.append((name, json.loads((out / "metrics.json").read_text())))
    assert [name for name, _ in done] == ["finetune", "finetune", "probe", "probe"]
    assert done[0][1]["steps"] == done[1][1]["steps"] == 3 and done[2][1]["train_images"] == 24


def test_a_run_ends_when_it_has_printed_its_result(images, tmp_path):
    """Data processes are gone by then: nothing waits for them, or for an alarm, afterwards."""
    with subprocess.Popen(
        flags(images, tmp_path / "run", workers=1, epochs=1), stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert any("which classes are taken for which" in line for line in iter(run.stdout.readline, ""))
        printed = time.monotonic()
        assert run.wait(60) == 0
    assert time.monotonic() - printed < 20  # it took 35 seconds, of 30 and 5 seconds' time limits
