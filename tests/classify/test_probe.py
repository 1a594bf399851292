"""`videomac probe`: what it leaves, that features are computed once, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import videomac
from tests.classify.folders import write_images
from videomac import cli
from videomac.classify.features import pooled
from videomac.errors import UserError
from videomac.models.checkpoint import save_backbone


def options(data: Path, out: Path, **changed: Any) -> dict[str, Any]:
    small = {"data": data, "backbone": "test_convnext", "out": out, "image_size": 32, "workers": 0, "k": 5}
    return {**small, **changed}


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, videomac.probe(**options(images, out))


def test_a_probe_leaves_what_it_promises(run):
    out, metrics = run
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics.keys() >= {"knn_top1", "linear_top1", "linear_top5"} and metrics["channels"] == 64
    assert (metrics["train_images"], metrics["val_images"], metrics["skipped_images"]) == (24, 12, 0)
    assert metrics["linear_top1"] > 0.6 and metrics["linear_top5"] == 1  # colours, which random features keep
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["blue", "green", "red"]
    for key in ("knn_top1", "linear_top1"):
        assert sum(float(row[key]) * int(row["images"]) for row in rows) / 12 == pytest.approx(metrics[key])
    with Image.open(out / "confusion.png") as image:
        assert min(image.size) > 200


def test_features_are_computed_once(run, images, tmp_path, monkeypatch):
    out, metrics = run
    monkeypatch.setattr("videomac.classify.features.pooled", lambda *_: pytest.fail("computed again"))
    assert videomac.probe(**options(images, out, resume=True)) == metrics
    other = videomac.probe(**options(images, out, resume=True, k=1, batch_size=3))
    assert other["linear_top1"] == metrics["linear_top1"]
    for changed in ({"seed": 1}, {"image_size": 64}, {"crop_pct": 1.0}):  # a seed gives other random weights
        with pytest.raises(UserError, match="are of other images, weights or settings"):
            videomac.probe(**options(images, out, resume=True, **changed))
    with pytest.raises(UserError, match="already holds a run"):
        videomac.probe(**options(images, out))
    with pytest.raises(UserError, match="there are no features to use"):
        videomac.probe(**options(images, tmp_path, resume=True))


def test_an_interrupted_computation_keeps_what_is_done(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr("videomac.classify.features.IMAGES_PER_FILE", 10)
    calls = []

    def interrupted(model, frames):
        calls.append(len(frames))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return pooled(model, frames)

    monkeypatch.setattr("videomac.classify.features.pooled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        videomac.probe(**options(images, tmp_path / "run"))
    assert len(list((tmp_path / "run" / "features").iterdir())) == 2
    assert videomac.probe(**options(images, tmp_path / "run", resume=True)) == run[1]
    assert calls == [10, 10, 4, 4, 10, 2]


def test_a_broken_image_is_reported_skipped_and_counted(tmp_path, caplog):
    root = write_images(tmp_path / "data")
    (root / "train" / "red" / "0.png").write_bytes(b"no picture")
    metrics = videomac.probe(**options(root, tmp_path / "run"))
    assert (metrics["train_images"], metrics["skipped_images"]) == (23, 1)
    assert "train/red/0.png" in caplog.text


def test_weights_of_a_run_of_an_export_and_of_a_fine_tuned_classifier_are_taken(images, tmp_path):
    model = timm.create_model("test_resnet", num_classes=0)
    save_backbone(model, tmp_path / "exported", name="test_resnet")
    found = videomac.probe(**options(images, tmp_path / "a", backbone=str(tmp_path / "exported")))
    assert found["channels"] == model.num_features
    again = videomac.probe(**options(images, tmp_path / "b", backbone=f"local-dir:{tmp_path / 'exported'}"))
    assert again == found
    torch.save({"state_dict": {}}, tmp_path / "wrong.ckpt")
    with pytest.raises(UserError, match="is no VideoMAC checkpoint"):
        videomac.probe(**options(images, tmp_path / "c", backbone=str(tmp_path / "wrong.ckpt")))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"k": 25}, "k is 25, but .* holds 24 images: lower k"),
        ({"k": 0}, "k must be at least 1"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"crop_pct": 0}, "crop_pct must be above 0"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
    ],
)
def test_options_that_cannot_work_are_refused(images, tmp_path, changed, sentence):
    with pytest.raises(UserError, match=sentence):
        videomac.probe(**options(images, tmp_path / "run", **changed))


def test_the_defaults_are_the_fields():
    config = cli.parse("probe", ["--data", "images", "--backbone", "resnet50", "--out", "out"])
    assert (config.k, config.temperature, config.image_size, config.crop_pct) == (20, 0.07, 224, 0.875)
