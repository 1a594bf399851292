"""DAVIS: perfect features score 1, layouts, official numbers, and one sentence for every mistake in the data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluate.benchmarks.complaints import complaint
from tests.evaluate.networks import QUICK, FixedGrid, PerfectFeatures
from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import davis as _davis
from videomac.evaluate.config import ScoreDavisConfig
from videomac.evaluate.harness import DataWarning
from videomac.evaluate.images import read_ids, write_ids
from videomac.evaluate.labels import masks_to_grid

DAVIS_KEYS = {"J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"}


def test_perfect_features_score_1_on_davis(davis_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    numbers = evaluate.davis(PerfectFeatures(2), data=davis_root, out=out, **QUICK)
    assert numbers.keys() == DAVIS_KEYS
    assert numbers["J&F-Mean"] == numbers["J-Mean"] == numbers["F-Mean"] == numbers["J-Recall"] == 1
    assert json.loads((out / "metrics.json").read_text()) == numbers


def test_perfect_features_score_1_on_davis_2016(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    root = synthetic.write_davis(tmp_path / "davis16", {"one": flat["one"]}, year=2016, suffix=".png")
    numbers = evaluate.davis(PerfectFeatures(2), data=root, out=tmp_path / "out", **QUICK)
    assert numbers["J&F-Mean"] == 1


@pytest.mark.parametrize("label_resize", ["nearest", "bilinear", "area"])
def test_perfect_features_at_stride_8_score_as_the_truth_sampled_to_the_grid(tmp_path: Path, label_resize: str) -> None:
    # Figures that stand still, so that the grid's truth in every frame is that of the first.
    moving = synthetic.scene(1, (96, 160), num_objects=2, textured=False)
    still = synthetic.Scene(
        *(np.repeat(part, 5, axis=0) for part in (moving.frames, moving.objects, moving.parts, moving.joints))
    )
    root = synthetic.write_davis(tmp_path / "davis", {"still": still}, suffix=".png")

    def cells(frames: Tensor) -> Tensor:  # every cell is like itself in other frames, and like no other
        return torch.eye(12 * 20).view(1, 240, 12, 20).expand(len(frames), -1, -1, -1) + 0 * frames[:, :1, ::8, ::8]

    settings = {**QUICK, "topk": 1, "label_resize": label_resize}
    numbers = evaluate.davis(FixedGrid(cells), data=root, out=tmp_path / "out", **settings)
    ids = torch.from_numpy(still.objects[0])
    grid = masks_to_grid(ids, 3, (96, 160), (12, 20), label_resize)  # type: ignore[arg-type]
    sampled = torch.nn.functional.interpolate(grid[None], (96, 160), mode="bilinear")[0].argmax(0).numpy()
    j, f = _davis.jaccard_and_boundary(sampled, still.objects[0], 2)
    assert numbers["J-Mean"] == pytest.approx(j.mean(), abs=1e-12) and numbers["J-Mean"] < 1
    assert numbers["F-Mean"] == pytest.approx(f.mean(), abs=1e-12)


def test_score_of_what_eval_predicted_is_the_same(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    davis = synthetic.write_davis(tmp_path / "d", flat)
    numbers = evaluate.davis("raw-pixels", data=davis, out=tmp_path / "1", stride=8, **QUICK)
    scored = ScoreDavisConfig(data=davis, predictions=tmp_path / "1" / "predictions", out=tmp_path / "s1")
    assert _davis.score_predictions(scored) == numbers
    assert json.loads((tmp_path / "s1" / "metrics.json").read_text()) == numbers


def test_a_few_labelled_frames_are_enough(tmp_path: Path) -> None:
    root = synthetic.write_davis(tmp_path / "davis", {"one": synthetic.scene(9, num_objects=2)}, suffix=".png")
    masks = sorted((root / "Annotations" / "480p" / "one").iterdir())
    kept, truth = (0, 3, 5, 8), [read_ids(path) for path in masks]
    for number, path in enumerate(masks):
        if number not in kept:
            path.unlink()
    numbers = evaluate.davis("raw-pixels", data=root, out=tmp_path / "out", stride=8, **QUICK)
    predicted = [read_ids(path) for path in sorted((tmp_path / "out" / "predictions" / "one").iterdir())]
    assert len(predicted) == 9  # frames without labels are steps on the way
    j = [_davis.jaccard_and_boundary(predicted[time], truth[time], 2)[0] for time in (3, 5)]  # the last never counts
    assert numbers["J-Mean"] == pytest.approx(np.mean(j), abs=1e-12) and 0 < numbers["J-Mean"] < 1


def test_frames_whose_numbers_have_no_zeros_are_taken_in_their_order(tmp_path: Path) -> None:
    root = synthetic.write_davis(tmp_path / "davis", {"a": synthetic.scene(12, (48, 80))})
    data = root / "ImageSets" / "2017" / "val.txt"
    for kind in ("JPEGImages", "Annotations"):
        for path in sorted((root / kind / "480p" / "a").iterdir()):
            path.rename(path.with_stem(str(int(path.stem))))
    assert data.read_text().split() == ["a"]
    (sequence,) = _davis.find(root, "auto", "480p", None)
    numbers = [str(number) for number in range(12)]
    assert [path.stem for path in sequence.masks] == numbers
    assert [path.stem for path in _davis.frames_of(root, "480p", sequence)] == numbers


def test_scoring_equals_the_official_multi_object_table(shared_data: Path, tmp_path: Path) -> None:
    inputs = shared_data / "davis-golden" / "inputs"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "480p").symlink_to(inputs / "multi_gt")
    rows = (shared_data / "davis-golden" / "official_davis_multiobject.csv").read_text().splitlines()
    golden = {line.split(",")[0]: [float(x) for x in line.split(",")[1:]] for line in rows[1:]}
    with pytest.warns(DataWarning, match="object . of sequence lab-coat"):
        scores = _davis.score(_davis.find(tmp_path, "all", "480p", None), inputs / "multi_pred")
    ours = {score.label: list(score.numbers.values()) for score in scores}
    average = golden.pop("ALL_OBJECTS_MEAN")
    assert ours == golden
    numbers = _davis.report(scores, None)
    np.testing.assert_allclose([numbers[key] for key in list(numbers)[1:]], average, rtol=0, atol=1e-15)


def test_real_davis_layouts_are_found(shared_data: Path) -> None:
    root = shared_data / "davis2016-val"
    sequences = _davis.find(root, "auto", "480p", None)
    assert [s.name for s in sequences][:2] == ["blackswan", "bmx-trees"] and len(sequences) == 8
    assert all(s.binary and s.num_objects == 1 for s in sequences)
    assert [s.name for s in _davis.find(root, "480p/val", "480p", None)] == [s.name for s in sequences]
    assert len(_davis.frames_of(root, "480p", sequences[0])) == 50
    split = _davis.find(shared_data / "vos-multi" / "davis2016-split-by-osvos", "auto", "480p", None)
    assert [(s.name, s.num_objects, s.binary) for s in split] == [("bmx-trees", 2, False)]


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    return synthetic.write_davis(tmp_path / "davis", {"dog": synthetic.scene(4, (48, 80))})


def predictions_of(davis: Path, tmp_path: Path) -> Path:
    """The truth as predictions."""
    return Path(shutil.copytree(davis / "Annotations" / "480p", tmp_path / "predictions"))


def score_complaint(davis: Path, predictions: Path) -> str:
    with pytest.raises(UserError) as caught:
        _davis.score_predictions(ScoreDavisConfig(data=davis, predictions=predictions))
    return str(caught.value)


def test_wrong_root_folder(davis: Path, tmp_path: Path) -> None:
    said = complaint("davis", davis / "JPEGImages", tmp_path)
    assert re.search(r"not in DAVIS layout: expected .*Annotations/480p, found 480p$", said)
    said = complaint("davis", tmp_path / "nowhere", tmp_path)
    assert "expected" in said and "no such folder" in said
    shutil.rmtree(davis / "JPEGImages")
    assert re.search(r"expected .*/JPEGImages/480p, found Annotations, ImageSets$", complaint("davis", davis, tmp_path))


def test_missing_frames(davis: Path, tmp_path: Path) -> None:
    (davis / "JPEGImages" / "480p" / "dog" / "00002.jpg").unlink()
    assert "frame 00002 of sequence dog is missing" in complaint("davis", davis, tmp_path)
    shutil.rmtree(davis / "JPEGImages" / "480p" / "dog")
    assert "sequence dog has masks but no frames" in complaint("davis", davis, tmp_path)


def test_a_frame_of_another_size(davis: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(davis / "JPEGImages" / "480p" / "dog" / "00001.jpg")
    assert "00001.jpg is 40x30 pixels but the first frame of dog is 80x48" in complaint("davis", davis, tmp_path)


def test_a_mask_of_another_size_than_its_frame(davis: Path, tmp_path: Path) -> None:
    write_ids(davis / "Annotations" / "480p" / "dog" / "00000.png", np.ones((30, 40), dtype=np.uint8))
    assert "is 40x30 pixels but its frame is 80x48" in complaint("davis", davis, tmp_path)


def test_an_rgb_mask(davis: Path, tmp_path: Path) -> None:
    Image.new("RGB", (80, 48)).save(davis / "Annotations" / "480p" / "dog" / "00000.png")
    assert "00000.png is an RGB picture, but a mask must hold object ids" in complaint("davis", davis, tmp_path)


def test_an_empty_first_mask(davis: Path, tmp_path: Path) -> None:
    write_ids(davis / "Annotations" / "480p" / "dog" / "00000.png", np.zeros((48, 80), dtype=np.uint8))
    assert "is an empty mask: the first frame" in complaint("davis", davis, tmp_path)


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


def test_a_sequence_of_one_frame(davis: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (davis / kind / "480p" / "dog" / f"{number:05d}.{suffix}").unlink()
    assert "sequence dog has 1 frame(s)" in complaint("davis", davis, tmp_path)


def test_two_frames_leave_nothing_to_score(davis: Path, tmp_path: Path) -> None:
    for number in (2, 3):
        (davis / "Annotations" / "480p" / "dog" / f"{number:05d}.png").unlink()
    said = score_complaint(davis, predictions_of(davis, tmp_path))
    assert "sequence dog has 2 masks: all but the first and the last are scored" in said


def test_splits_and_sequences_that_are_not_there(davis: Path, tmp_path: Path) -> None:
    said = complaint("davis", davis, tmp_path, split="2017/trian")
    assert re.search(r"no split .*2017/trian.txt: .*found \(2017/val\)", said)
    assert "sequence 'cat' is not in" in complaint("davis", davis, tmp_path, sequences=["cat"])
    (davis / "ImageSets" / "2017" / "val.txt").write_text("dog\nbear\n")
    assert "sequence bear of" in complaint("davis", davis, tmp_path)
    (davis / "ImageSets" / "2017" / "val.txt").write_text("")
    assert "names no sequence" in complaint("davis", davis, tmp_path)


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


def test_names_of_a_split_lead_nowhere(davis_root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    shutil.copytree(davis_root / "JPEGImages" / "480p" / "one", victim / "frames")
    (victim / "kept.txt").write_text("kept")
    truth = (davis_root / "Annotations" / "480p" / "one").resolve()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("../../../victim", "../one", str(truth), "one/../one", ".."):
        (davis_root / "ImageSets" / "2017" / "val.txt").write_text(f"one\n{name}\n")
        assert "is not a plain name" in complaint("davis", davis_root, tmp_path)
        with pytest.raises(UserError, match="is not a plain name"):
            _davis.score_predictions(ScoreDavisConfig(data=davis_root, predictions=davis_root))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    (davis_root / "ImageSets" / "2017" / "val.txt").write_bytes(before[davis_root / "ImageSets" / "2017" / "val.txt"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_split_that_is_no_text_is_one_sentence(davis_root: Path, tmp_path: Path) -> None:
    (davis_root / "ImageSets" / "2017" / "val.txt").write_bytes(b"one\n\xff\xfe\n")
    assert "is not UTF-8 text" in complaint("davis", davis_root, tmp_path)
