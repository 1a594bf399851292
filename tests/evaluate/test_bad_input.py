"""Every mistake in the data gets one sentence that says what, where, and how to cure it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import davis as _davis
from videomac.evaluate.benchmarks import jhmdb as _jhmdb
from videomac.evaluate.benchmarks import vip as _vip
from videomac.evaluate.config import ScoreDavisConfig, ScoreJhmdbConfig, ScoreVipConfig
from videomac.evaluate.harness import DataWarning
from videomac.evaluate.images import read_ids, write_ids


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return synthetic.write_davis(tmp_path / "davis", {"dog": synthetic.scene(4, (48, 80))})


@pytest.fixture
def vip(tmp_path: Path) -> Path:
    return synthetic.write_vip(tmp_path / "vip", {"videos1": synthetic.scene(3, (48, 80))})


@pytest.fixture
def jhmdb(tmp_path: Path) -> Path:
    return synthetic.write_jhmdb(tmp_path / "jhmdb", {"run/one": synthetic.scene(3, (48, 80))})


def complaint(benchmark: str, data: Path, tmp_path: Path, **settings: Any) -> str:
    """The sentence that an evaluation ends with."""
    with pytest.raises(UserError) as caught:
        getattr(evaluate, benchmark)("raw-pixels", data=data, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out" / "predictions").exists(), "found out too late"
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


def predictions_of(davis: Path, tmp_path: Path) -> Path:
    """The truth as predictions."""
    return Path(shutil.copytree(davis / "Annotations" / "480p", tmp_path / "predictions"))


def score_complaint(davis: Path, predictions: Path) -> str:
    with pytest.raises(UserError) as caught:
        _davis.score_predictions(ScoreDavisConfig(data=davis, predictions=predictions))
    return str(caught.value)


def test_wrong_root_folder(davis: Path, vip: Path, jhmdb: Path, tmp_path: Path) -> None:
    said = complaint("davis", davis / "JPEGImages", tmp_path)
    assert re.search(r"not in DAVIS layout: expected .*Annotations/480p, found 480p$", said)
    assert "expected" in complaint("davis", tmp_path / "nowhere", tmp_path) and "no such folder" in complaint(
        "davis", tmp_path / "nowhere", tmp_path
    )
    shutil.rmtree(davis / "JPEGImages")
    assert re.search(r"expected .*/JPEGImages/480p, found Annotations, ImageSets$", complaint("davis", davis, tmp_path))
    said = complaint("vip", davis.parent, tmp_path)
    assert re.search(r"not in VIP layout: expected .*Annotations/Category_ids, found davis, jhmdb, vip", said)
    assert re.search(r"not in JHMDB layout: expected .*joint_positions", complaint("jhmdb", vip, tmp_path))


def test_missing_frames(davis: Path, vip: Path, jhmdb: Path, tmp_path: Path) -> None:
    (davis / "JPEGImages" / "480p" / "dog" / "00002.jpg").unlink()
    assert "frame 00002 of sequence dog is missing" in complaint("davis", davis, tmp_path)
    shutil.rmtree(davis / "JPEGImages" / "480p" / "dog")
    assert "sequence dog has masks but no frames" in complaint("davis", davis, tmp_path)
    next((vip / "Images" / "videos1").iterdir()).unlink()
    assert "is missing" in complaint("vip", vip, tmp_path)
    (jhmdb / "Rename_Images" / "run" / "one" / "00002.png").unlink()
    assert "frame 00002 of video run/one is missing" in complaint("jhmdb", jhmdb, tmp_path)


def test_a_frame_of_another_size(davis: Path, jhmdb: Path, tmp_path: Path) -> None:
    path = davis / "JPEGImages" / "480p" / "dog" / "00001.jpg"
    Image.new("RGB", (40, 30)).save(path)
    assert "00001.jpg is 40x30 pixels but the first frame of dog is 80x48" in complaint("davis", davis, tmp_path)
    path = jhmdb / "Rename_Images" / "run" / "one" / "00003.png"
    Image.new("RGB", (40, 30)).save(path)
    assert "00003.png is 40x30 pixels" in complaint("jhmdb", jhmdb, tmp_path)


def test_a_mask_of_another_size_than_its_frame(davis: Path, vip: Path, tmp_path: Path) -> None:
    write_ids(davis / "Annotations" / "480p" / "dog" / "00000.png", np.ones((30, 40), dtype=np.uint8))
    assert "is 40x30 pixels but its frame is 80x48" in complaint("davis", davis, tmp_path)
    write_ids(_vip.find(vip, "auto", None)[0].masks[0], np.ones((30, 40), dtype=np.uint8))
    assert "is 40x30 pixels but its frame is 80x48" in complaint("vip", vip, tmp_path)


def test_an_rgb_mask(davis: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 48)).save(davis / "Annotations" / "480p" / "dog" / "00000.png")
    assert "00000.png is an RGB picture, but a mask must hold object ids" in complaint("davis", davis, tmp_path)


def test_an_empty_first_mask(davis: Path, vip: Path, tmp_path: Path) -> None:
    for data, first, name in (
        (davis, davis / "Annotations" / "480p" / "dog" / "00000.png", "davis"),
        (vip, _vip.find(vip, "auto", None)[0].masks[0], "vip"),
    ):
        write_ids(first, np.zeros((48, 80), dtype=np.uint8))
        assert "is an empty mask: the first frame" in complaint(name, data, tmp_path)
    write_ids(davis / "Annotations" / "480p" / "dog" / "00000.png", np.zeros((48, 80), dtype=np.uint8))


def test_an_object_that_is_absent_from_the_first_frame(davis: Path, tmp_path: Path) -> None:
    masks = davis / "Annotations" / "480p" / "dog"
    ids = read_ids(masks / "00002.png")
    ids[ids == 2] = 5  # comes late, above the largest id
    write_ids(masks / "00002.png", ids)
    predictions = predictions_of(davis, tmp_path)
    write_ids(predictions / "dog" / "00002.png", np.where(ids == 5, 2, ids).astype(np.uint8))
    with pytest.warns(DataWarning, match="object 5 of sequence dog first appears in frame 00002"):
        numbers = _davis.score_predictions(ScoreDavisConfig(data=davis, predictions=predictions))
    assert numbers["J-Mean"] == pytest.approx(0.75)
    ids = read_ids(masks / "00000.png")
    write_ids(masks / "00000.png", np.where(ids == 1, 0, ids).astype(np.uint8))  # 1 is absent, 2 is there
    with pytest.warns(DataWarning, match="object 1 of sequence dog is absent from the first mask"):
        _davis.find(davis, "auto", "480p", None)


def test_a_sequence_of_one_frame(davis: Path, jhmdb: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (davis / kind / "480p" / "dog" / f"{number:05d}.{suffix}").unlink()
    assert "sequence dog has 1 frame(s)" in complaint("davis", davis, tmp_path)
    for number in (2, 3):
        (jhmdb / "Rename_Images" / "run" / "one" / f"{number:05d}.png").unlink()
    assert "sequence run/one has 1 frame(s)" in complaint("jhmdb", jhmdb, tmp_path)


def test_two_frames_leave_nothing_to_score(davis: Path, tmp_path: Path) -> None:
    for number in (2, 3):
        (davis / "Annotations" / "480p" / "dog" / f"{number:05d}.png").unlink()
    said = score_complaint(davis, predictions_of(davis, tmp_path))
    assert "sequence dog has 2 masks: all but the first and the last are scored" in said


def test_splits_and_sequences_that_are_not_there(davis: Path, jhmdb: Path, tmp_path: Path) -> None:
    assert re.search(
        r"no split .*2017/trian.txt: .*found \(2017/val\)", complaint("davis", davis, tmp_path, split="2017/trian")
    )
    assert "sequence 'cat' is not in" in complaint("davis", davis, tmp_path, sequences=["cat"])
    (davis / "ImageSets" / "2017" / "val.txt").write_text("dog\nbear\n")
    assert "sequence bear of" in complaint("davis", davis, tmp_path)
    (davis / "ImageSets" / "2017" / "val.txt").write_text("")
    assert "names no sequence" in complaint("davis", davis, tmp_path)
    assert "--split may be 1, 2, 3 or all" in complaint("jhmdb", jhmdb, tmp_path, split="9")


def test_mat_files(jhmdb: Path, tmp_path: Path) -> None:
    mat = jhmdb / "joint_positions" / "run" / "one" / "joint_positions.mat"
    scipy.io.savemat(mat, {"pos_world": np.zeros((2, 15, 3))})
    assert "has no pos_img, the joints in pixels (found pos_world)" in complaint("jhmdb", jhmdb, tmp_path)
    scipy.io.savemat(mat, {"pos_img": np.zeros((2, 13, 3))})
    assert "is (2, 13, 3), but must be (2, 15, frames)" in complaint("jhmdb", jhmdb, tmp_path)
    mat.write_bytes(b"not matlab" * 50)
    assert "is not a readable .mat file" in complaint("jhmdb", jhmdb, tmp_path)
    mat.unlink()
    assert "does not exist" in complaint("jhmdb", jhmdb, tmp_path)


def test_predictions(davis: Path, tmp_path: Path) -> None:
    assert "no folder of predictions" in score_complaint(davis, tmp_path / "nowhere")
    assert "no predictions for sequence dog" in score_complaint(davis, davis)
    predictions = predictions_of(davis, tmp_path)
    for unscored in ("00000.png", "00003.png"):  # need not be there
        (predictions / "dog" / unscored).unlink()
    assert _davis.score_predictions(ScoreDavisConfig(data=davis, predictions=predictions))["J&F-Mean"] == 1
    path = predictions / "dog" / "00001.png"
    ids = read_ids(path)
    write_ids(path, np.where(ids == 2, 3, ids).astype(np.uint8))
    assert "00001.png has object 3 but sequence dog has 2 object(s)" in score_complaint(davis, predictions)
    Image.new("RGB", (80, 48)).save(path)
    assert "is an RGB picture" in score_complaint(davis, predictions)
    write_ids(path, ids[:30])
    assert "00001.png is 80x30 pixels but the truth is 80x48" in score_complaint(davis, predictions)
    path.write_bytes(b"\x89PNG\r\n")
    assert "is not a readable picture" in score_complaint(davis, predictions)
    path.unlink()
    assert "00001.png is missing: every frame but the first and the last" in score_complaint(davis, predictions)


def test_predictions_of_vip_and_jhmdb(vip: Path, jhmdb: Path, tmp_path: Path) -> None:
    def said(module: Any, config: Any) -> str:
        with pytest.raises(UserError) as caught:
            module.score_predictions(config)
        return str(caught.value)

    predictions = Path(shutil.copytree(vip / "Annotations" / "Category_ids", tmp_path / "p"))
    config = ScoreVipConfig(data=vip, predictions=predictions)
    assert _vip.score_predictions(config) == {"mIoU": 1.0}
    path = sorted((predictions / "videos1").iterdir())[0]
    write_ids(path, np.full((48, 80), 20, dtype=np.uint8))
    assert "has class 20: VIP's classes are 0 (background) to 19" in said(_vip, config)
    path.unlink()
    assert "every annotated frame is scored, the first included" in said(_vip, config)
    joints = Path(shutil.copytree(jhmdb / "joint_positions", tmp_path / "q"))
    jhmdb_config = ScoreJhmdbConfig(data=jhmdb, predictions=joints)
    assert _jhmdb.score_predictions(jhmdb_config)["PCK@0.1"] == 1
    mat = joints / "run" / "one" / "joint_positions.mat"
    _jhmdb.write_joints(mat, np.zeros((7, 15, 2)))
    assert "has 7 frames but the truth has 3" in said(_jhmdb, jhmdb_config)
    mat.unlink()
    assert "is missing: every video of the split is scored" in said(_jhmdb, jhmdb_config)


def test_devices_and_backbones(davis: Path, tmp_path: Path) -> None:
    assert "device 'cudda' cannot be used" in complaint("davis", davis, tmp_path, device="cudda")
    with pytest.raises(UserError, match="unknown backbone 'resnet81'"):
        evaluate.davis("resnet81", data=davis, out=tmp_path / "out")
