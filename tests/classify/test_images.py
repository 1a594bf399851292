"""Folders of labelled images."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.classify.folders import write_images
from tests.classify.networks import build
from videomac.classify.config import FinetuneConfig
from videomac.classify.images import ClassificationData, find_images, train_transform
from videomac.errors import UserError


def broken(tmp_path: Path, change: Any) -> Path:
    root = write_images(tmp_path / "data")
    change(root)
    return root


def remove(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: remove(root / "val"), "has no folder val: images are expected in .*val/CLASS/"),
        (lambda root: [remove(root / "train" / c) for c in ("red", "green", "blue")], "train has no class folders"),
        (lambda root: remove(root / "val" / "red"), "hold different classes: only in train: red"),
        (lambda root: (root / "val" / "pink").mkdir(), "hold different classes: only in val: pink"),
        (lambda root: [f.unlink() for f in (root / "train" / "red").iterdir()], "train/red holds no image"),
        (lambda root: [remove(root / p / c) for p in ("train", "val") for c in ("red", "blue")], "holds one class"),
    ],
)
def test_a_data_set_that_cannot_work_is_refused(tmp_path, change, sentence):
    with pytest.raises(UserError, match=sentence):
        find_images(broken(tmp_path, change))


def test_a_sample_depends_on_seed_epoch_and_index_alone(images):
    config = FinetuneConfig(
        data=images, backbone="test_convnext", out=Path("out"), image_size=32, epochs=2, global_batch_size=8, workers=0
    )
    data = ClassificationData(config, find_images(images), build("test_convnext"))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = data.train[(3, 5)]["image"]
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    data.train[(3, 6)]
    assert torch.equal(first, data.train[(3, 5)]["image"])
    assert not torch.equal(first, data.train[(4, 5)]["image"])
    whole = [key for batch in data.loader(0, 0, 1).batch_sampler for key in batch]
    resumed = [key for batch in data.loader(2, 0, 1).batch_sampler for key in batch]
    assert resumed == whole[16:] and sorted(index for _, index in whole[:24]) == list(range(24))
    shares = [next(iter(data.loader(0, rank, 2).batch_sampler)) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == sorted(whole[:8])


def test_the_training_pipeline_is_that_of_the_recipe(images):
    config = FinetuneConfig(data=images, backbone="test_convnext", out=Path("out"), global_batch_size=8)
    data = ClassificationData(config, find_images(images), build("test_convnext"))
    crop, flip, augment, _, normalize, erase = data.train.transform.transforms
    assert crop.size == (224, 224) and crop.scale == (0.08, 1.0) and crop.interpolation.value == "bicubic"
    assert flip.p == 0.5 and augment.num_layers == 2 and len(augment.ops) == 15
    assert {(op.magnitude, op.magnitude_std) for op in augment.ops} == {(9, 0.5)}
    assert (erase.probability, erase.per_pixel, erase.max_count) == (0.25, True, 1)
    assert tuple(normalize.mean.tolist()) == (0.5, 0.5, 0.5) == timm.get_pretrained_cfg("test_convnext").mean
    resize, centre, *_ = data.val.transform.transforms
    assert resize.size == 256 and resize.interpolation.value == "bicubic" and centre.size == (224, 224)


@pytest.mark.parametrize("policy", ["rand-m15-inc1", "original", "augmix-m10-w3"])
def test_policies_take_their_strongest_level(tmp_path: Path, policy: str) -> None:
    """At level 10 timm posterizes to 0 bits, which Pillow refuses; it once painted black."""
    config = FinetuneConfig(write_images(tmp_path), "resnet18", tmp_path / "out", auto_augment=policy, image_size=32)
    transform = train_transform(config, build("test_resnet", num_classes=3))
    ops = [
        op for step in transform.transforms for op in [*getattr(step, "ops", []), *chain(*getattr(step, "policy", []))]
    ]
    strongest = [op for op in ops if "Posterize" in op.name]
    assert strongest
    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    for op in strongest:
        assert op.aug_fn(picture, 0, **op.kwargs).size == (8, 8)
