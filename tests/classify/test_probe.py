import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from scipy.optimize import minimize
from torch import nn

import videomac
from tests.classify.folders import write_images
from videomac import cli
from videomac.classify.features import pooled
from videomac.classify.knn import knn_votes
from videomac.classify.linear_probe import GRADIENT, HELD_OUT, PENALTIES, LinearProbe, _held_out, fit, fit_probe
from videomac.errors import UserError
from videomac.models.checkpoint import save_backbone


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def options(data: Path, out: Path, **changed: Any) -> dict[str, Any]:
    small = {"data": data, "backbone": "test_convnext", "out": out, "image_size": 32, "workers": 0, "k": 5}
    return {**small, **changed}


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, videomac.probe(**options(images, out))


# k-NN -----------------------------------------------------------------------------------------------------------------


def slow_votes(train, labels, test, classes, k, temperature) -> list[list[float]]:
    """One image, one neighbour at a time."""
    votes = []
    for image in test:
        neighbours = []
        for other, label in zip(train, labels, strict=True):
            lengths = math.sqrt(sum(x * x for x in image)) * math.sqrt(sum(y * y for y in other))
            neighbours.append((sum(x * y for x, y in zip(image, other, strict=True)) / lengths, label))
        tally = [0.0] * classes
        for similarity, label in sorted(neighbours, reverse=True)[:k]:
            tally[label] += math.exp(similarity / temperature)
        votes.append([vote / sum(tally) for vote in tally])
    return votes


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (40, 0.5)])
def test_votes_are_those_of_a_slow_reading_of_the_definition(k, temperature):
    generator = torch.Generator().manual_seed(k)
    train, test = torch.randn(40, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    votes = knn_votes(train, labels, test, classes=4, k=k, temperature=temperature)
    expected = torch.tensor(slow_votes(train.tolist(), labels.tolist(), test.tolist(), 4, k, temperature))
    torch.testing.assert_close(votes, expected, rtol=1e-4, atol=1e-6)


def test_votes_do_not_depend_on_length_or_on_how_many_are_compared_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(30, 5, generator=generator), torch.randn(11, 5, generator=generator)
    labels = torch.arange(30) % 3
    votes = knn_votes(train, labels, test, classes=3)
    monkeypatch.setattr("videomac.classify.knn.ROWS", 4)
    torch.testing.assert_close(knn_votes(train * 7, labels, test * 0.3, classes=3), votes)
    with pytest.raises(ValueError, match="31 neighbours asked for of 30"):
        knn_votes(train, labels, test, classes=3, k=31)


# Linear probe ---------------------------------------------------------------------------------------------------------


def problem(images: int = 120, channels: int = 7, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes, channels of very different size and place, and one that never varies."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (images,), generator=generator)
    centres = torch.randn(classes, channels, generator=generator)
    features = centres[labels] + torch.randn(images, channels, generator=generator)
    features = features * torch.logspace(-3, 3, channels) + torch.linspace(-50, 50, channels)
    features[:, 2] = 3.25
    return features, labels


def objective(parameters: np.ndarray, values: np.ndarray, labels: np.ndarray, classes: int, penalty: float) -> float:
    weight, bias = parameters[:-classes].reshape(classes, -1), parameters[-classes:]
    logits = values @ weight.T + bias
    largest = logits.max(1, keepdims=True)
    normaliser = largest[:, 0] + np.log(np.exp(logits - largest).sum(1))
    return float((normaliser - logits[np.arange(len(labels)), labels]).mean() + penalty / 2 * (weight**2).sum())


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_probe_is_the_optimum_that_scipy_finds(penalty):
    features, labels = problem()
    probe = fit(features, labels, classes=4, penalty=penalty)
    values = features.double().numpy()
    deviation = values.std(0)
    deviation[2] = 1
    values = (values - values.mean(0)) / deviation
    found = minimize(
        objective,
        np.zeros(4 * 7 + 4),
        (values, labels.numpy(), 4, penalty),
        method="BFGS",
        options={"gtol": 1e-7, "maxiter": 5000},
    )
    ours = np.concatenate([probe.weight.flatten().numpy(), probe.bias.numpy()])
    assert objective(ours, values, labels.numpy(), 4, penalty) <= found.fun + 1e-10
    theirs = torch.from_numpy(found.x[:-4].reshape(4, 7))
    torch.testing.assert_close(probe.weight, theirs, rtol=0, atol=2e-3 if penalty < 1e-3 else 2e-5)
    logits = torch.from_numpy(values) @ theirs.T + torch.from_numpy(found.x[-4:])
    assert torch.equal(probe.logits(features).argmax(1), logits.argmax(1))


def test_the_gradient_vanishes_where_the_probe_stops_also_from_another_start():
    features, labels = problem(images=60, channels=80)  # more channels than images: separable
    first = fit(features, labels, classes=4, penalty=1e-3)
    second = fit(features, labels, classes=4, penalty=1e-3, start=fit(features, labels, classes=4, penalty=1.0))
    torch.testing.assert_close(first.weight, second.weight, rtol=0, atol=1e-3)
    for probe in (first, second):
        weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
        values = (features.double() - probe.mean) / probe.std
        loss = nn.functional.cross_entropy(values @ weight.T + bias, labels) + 1e-3 / 2 * weight.square().sum()
        loss.backward()
        assert max(weight.grad.abs().max(), bias.grad.abs().max()) <= GRADIENT


def test_the_penalty_is_the_best_on_images_that_were_not_fitted():
    features, labels = problem(images=200)
    held_out = _held_out(labels, seed=3)
    for label in range(4):
        assert held_out[labels == label].sum() == (labels == label).sum() // HELD_OUT
    right = {}
    for penalty in PENALTIES:
        probe = fit(features[~held_out], labels[~held_out], classes=4, penalty=penalty)
        right[penalty] = (probe.logits(features[held_out]).argmax(1) == labels[held_out]).sum().item()
    chosen = fit_probe(features, labels, classes=4, seed=3)
    assert chosen.penalty == max(PENALTIES, key=lambda penalty: (right[penalty], penalty))
    again = fit(features, labels, classes=4, penalty=chosen.penalty)
    assert torch.equal(chosen.weight, again.weight) and isinstance(again, LinearProbe)
    assert len(set(right.values())) > 1


# Features -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit"])
def test_features_are_what_timm_pools(name):
    model = timm.create_model(name, num_classes=0).eval()
    frames = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(pooled(model, frames), model(frames))


def test_layers_of_the_head_that_pretraining_never_reached_are_left_out():
    model = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    frames = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features = pooled(model, frames)
        torch.testing.assert_close(features, model.forward_features(frames).mean((2, 3)))
    assert features.shape[1] == model.num_features != model(frames).shape[1]


# The command ----------------------------------------------------------------------------------------------------------


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
