"""Whole evaluations on made-up data sets in the benchmarks' own layouts, where the right answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import davis as _davis
from videomac.evaluate.benchmarks import jhmdb as _jhmdb
from videomac.evaluate.benchmarks import vip as _vip
from videomac.evaluate.config import ScoreDavisConfig, ScoreJhmdbConfig, ScoreVipConfig
from videomac.evaluate.harness import DataWarning
from videomac.evaluate.images import PALETTE, read_ids
from videomac.evaluate.labels import masks_to_grid

QUICK: dict[str, Any] = {"videos": False, "size": "native", "radius": 6, "context_frames": 2, "topk": 2}
DAVIS_KEYS = {"J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"}


class PerfectFeatures(torch.nn.Module):
    """One-hot id of the flat colour at the centre of each cell: what every pixel is, with no doubt left."""

    def __init__(self, num_objects: int, stride: int = 1) -> None:
        super().__init__()
        self.register_buffer("colours", torch.from_numpy(synthetic.flat_colours(num_objects)).float() / 255)
        self.stride = stride

    def forward(self, frames: Tensor) -> Tensor:
        half = self.stride // 2
        pixels = frames * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        pixels = (pixels + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))[
            ..., half :: self.stride, half :: self.stride
        ]
        distance = (pixels[:, None] - self.colours[:, :, None, None]).square().sum(2)
        return torch.nn.functional.one_hot(distance.argmin(1), len(self.colours)).movedim(-1, 1).float()


class SharpColours(torch.nn.Module):
    """Random Fourier features of the colour: 1 with the same colour, about 0 with any other."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.randn(256, 3, 1, 1, generator=generator) * 20
        self.phases = torch.rand(256, generator=generator).view(-1, 1, 1) * 2 * torch.pi

    def forward(self, frames: Tensor) -> Tensor:
        return (torch.nn.functional.conv2d(frames, self.weights) + self.phases).cos()


@pytest.fixture(scope="module")
def flat() -> dict[str, synthetic.Scene]:
    """Two sequences of flat colours, 2 and 1 objects."""
    return {
        "two": synthetic.scene(6, (48, 80), num_objects=2, textured=False),
        "one": synthetic.scene(5, (48, 64), num_objects=1, seed=1, textured=False),
    }


@pytest.fixture
def davis_root(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> Path:
    return synthetic.write_davis(tmp_path / "davis", flat, suffix=".png")


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


def test_perfect_features_score_1_on_vip(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    root = synthetic.write_vip(tmp_path / "vip", flat, suffix=".png")
    numbers = evaluate.vip(PerfectFeatures(2), data=root, out=tmp_path / "out", **QUICK)
    assert numbers == {"mIoU": 1.0}
    predictions = tmp_path / "out" / "predictions" / "two"
    truth = root / "Annotations" / "Category_ids" / "two"
    assert [path.name for path in sorted(predictions.iterdir())] == [path.name for path in sorted(truth.iterdir())]


def test_perfect_features_score_1_on_jhmdb(tmp_path: Path) -> None:
    scenes = {
        "run/one": synthetic.scene(5, (48, 64), num_objects=1),
        "jump/two": synthetic.scene(4, (48, 64), 1, seed=2),
    }
    for video in scenes.values():  # what comes out from behind the figure must be known too
        video.frames[video.objects == 0] = 0
    root = synthetic.write_jhmdb(tmp_path / "jhmdb", scenes)
    settings = {**QUICK, "topk": 1, "joint_topk": 1}
    numbers = evaluate.jhmdb(SharpColours(), data=root, out=tmp_path / "out", **settings)
    assert numbers == {f"PCK@0.{tenth}": 1.0 for tenth in range(1, 6)}
    joints = _jhmdb.read_joints(tmp_path / "out" / "predictions" / "run" / "one" / "joint_positions.mat")
    np.testing.assert_allclose(joints[1:], scenes["run/one"].joints[1:], atol=1e-9)


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
    numbers = evaluate.davis(_FixedGrid(cells), data=root, out=tmp_path / "out", **settings)
    ids = torch.from_numpy(still.objects[0])
    grid = masks_to_grid(ids, 3, (96, 160), (12, 20), label_resize)  # type: ignore[arg-type]
    sampled = torch.nn.functional.interpolate(grid[None], (96, 160), mode="bilinear")[0].argmax(0).numpy()
    j, f = _davis.jaccard_and_boundary(sampled, still.objects[0], 2)
    assert numbers["J-Mean"] == pytest.approx(j.mean(), abs=1e-12) and numbers["J-Mean"] < 1
    assert numbers["F-Mean"] == pytest.approx(f.mean(), abs=1e-12)


class _FixedGrid(torch.nn.Module):
    """A function for one frame size, which answers the question for its stride too."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, frames: Tensor) -> Tensor:
        if frames.shape[-2:] != (96, 160):
            return torch.zeros(1, 240, -(-frames.shape[2] // 8), -(-frames.shape[3] // 8))
        return self.function(frames)


@pytest.mark.parametrize("protocol", ["videomac", "crw", "dino", "cropmae", "vfs"])
def test_every_protocol_runs_on_every_benchmark(tmp_path: Path, protocol: str) -> None:
    scenes = {"a": synthetic.scene(4, (64, 96), num_objects=2)}
    settings: dict[str, Any] = {"protocol": protocol, "stride": 2, "videos": False, "topk": 3, "size": "64x96"}
    numbers = evaluate.davis(
        "raw-pixels", data=synthetic.write_davis(tmp_path / "d", scenes), out=tmp_path / "1", **settings
    )
    assert 0 < numbers["J&F-Mean"] < 1
    numbers = evaluate.vip(
        "raw-pixels", data=synthetic.write_vip(tmp_path / "v", scenes), out=tmp_path / "2", **settings
    )
    assert 0 < numbers["mIoU"] < 1
    root = synthetic.write_jhmdb(tmp_path / "j", {f"c/{name}": video for name, video in scenes.items()})
    numbers = evaluate.jhmdb("raw-pixels", data=root, out=tmp_path / "3", **settings)
    assert 0 < numbers["PCK@0.5"] <= 1
    stored = yaml.safe_load((tmp_path / "3" / "config.yaml").read_text())
    assert stored["protocol"] == protocol and "topk" in stored["changed_settings"]
    assert stored["features"]["stride"] == 2 and stored["features"]["channels"] == 12


def test_what_an_evaluation_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = synthetic.write_davis(
        tmp_path / "davis", {"a": synthetic.scene(4, (64, 96)), "b": synthetic.scene(5, (64, 96), 1)}
    )
    out = tmp_path / "out"
    numbers = evaluate.davis("raw-pixels", data=root, out=out, radius=5, size="native")
    printed = capsys.readouterr().out
    for word in (
        "protocol videomac with size, radius changed",
        "radius=5",
        "grid stride 8",
        "192 channels",
        "temperature=",
    ):
        assert word in printed
    assert (out / "global_results-val.csv").read_text().splitlines() == [
        "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay",
        ",".join(f"{numbers[key]:.3f}" for key in "J&F-Mean J-Mean J-Recall J-Decay F-Mean F-Recall F-Decay".split()),
    ]
    lines = (out / "per-sequence_results-val.csv").read_text().splitlines()
    assert lines[0] == "Sequence,J-Mean,F-Mean" and [line.split(",")[0] for line in lines[1:]] == ["a_1", "a_2", "b_1"]
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
    picture = Image.open(out / "predictions" / "a" / "00002.png")
    assert picture.mode == "P" and picture.size == (96, 64)
    assert picture.getpalette()[:12] == PALETTE[:4].flatten().tolist() == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert np.array_equal(read_ids(out / "predictions" / "a" / "00000.png"), synthetic.scene(4, (64, 96)).objects[0])
    for name in ("overlays/a.mp4", "overlays/b.mp4", "sheets/a.png", "sheets/b.png", "config.yaml"):
        assert (out / name).stat().st_size > 100


def test_an_interrupted_evaluation_continues_with_the_next_sequence(
    davis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate.davis("raw-pixels", data=davis_root, out=tmp_path / "whole", stride=8, **QUICK)
    out = tmp_path / "broken"
    calls: list[str] = []
    original = _davis.masks_of

    def interrupted(evaluation: Any, frames: list[Path], first: Any) -> Any:
        calls.append(frames[0].parent.name)
        for time, ids in enumerate(original(evaluation, frames, first)):
            if len(calls) == 2 and time == 2:
                raise KeyboardInterrupt
            yield ids

    monkeypatch.setattr(_davis, "masks_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, **QUICK)
    with pytest.raises(UserError, match="already holds a run"):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, **QUICK)
    with pytest.raises(UserError, match=r"cannot resume .* with other settings: changed_settings, temperature differ"):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, resume=True, temperature=1.0, **QUICK)
    with pytest.raises(UserError, match="no evaluation to resume"):
        evaluate.davis("raw-pixels", data=davis_root, out=tmp_path / "new", stride=8, resume=True, **QUICK)
    assert evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, resume=True, **QUICK) == whole
    assert calls == ["two", "one", "one"]
    assert "1 of 2 sequences are done already" in capsys.readouterr().out
    evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, overwrite=True, **QUICK)
    assert calls[3:] == ["two", "one"]


def test_features_are_computed_once_a_frame_in_batches(davis_root: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(PerfectFeatures):
        def forward(self, frames: Tensor) -> Tensor:
            if frames.shape[-2:] == (48, 80):
                seen.append(len(frames))
            return super().forward(frames)

    evaluate.davis(Counting(2), data=davis_root, out=tmp_path / "o", batch_size=4, sequences=["two"], **QUICK)
    assert seen == [4, 2]


def test_bfloat16_features_give_nearly_the_same(tmp_path: Path) -> None:
    root = synthetic.write_davis(tmp_path / "davis", {"a": synthetic.scene(4, (64, 96))})
    settings = {**QUICK, "data": root, "stage": 2, "stride": 4}
    single = evaluate.davis("resnet18", out=tmp_path / "32", **settings)
    half = evaluate.davis("resnet18", out=tmp_path / "16", precision="bf16-mixed", **settings)
    assert half["J&F-Mean"] == pytest.approx(single["J&F-Mean"], abs=0.1)


def test_score_of_what_eval_predicted_is_the_same(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    davis = synthetic.write_davis(tmp_path / "d", flat)
    numbers = evaluate.davis("raw-pixels", data=davis, out=tmp_path / "1", stride=8, **QUICK)
    scored = ScoreDavisConfig(data=davis, predictions=tmp_path / "1" / "predictions", out=tmp_path / "s1")
    assert _davis.score_predictions(scored) == numbers
    assert json.loads((tmp_path / "s1" / "metrics.json").read_text()) == numbers
    vip = synthetic.write_vip(tmp_path / "v", flat)
    numbers = evaluate.vip("raw-pixels", data=vip, out=tmp_path / "2", stride=8, **QUICK)
    assert _vip.score_predictions(ScoreVipConfig(data=vip, predictions=tmp_path / "2" / "predictions")) == numbers
    jhmdb = synthetic.write_jhmdb(tmp_path / "j", {f"c/{name}": scene for name, scene in flat.items()})
    numbers = evaluate.jhmdb("raw-pixels", data=jhmdb, out=tmp_path / "3", stride=8, **QUICK)
    scored_jhmdb = ScoreJhmdbConfig(data=jhmdb, predictions=tmp_path / "3" / "predictions")
    assert _jhmdb.score_predictions(scored_jhmdb) == numbers


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


def test_a_real_jhmdb_video(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "jhmdb-sample"
    videos = _jhmdb.find(root, "auto", None)
    assert [video.name for video in videos] == ["catch/Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2"]
    assert videos[0].joints.shape == (40, 15, 2) and videos[0].joints[0, 0].tolist() == [285.5, 105.5]
    assert len(_jhmdb.frames_of(root, videos[0])) == 40
    _jhmdb.write_joints(tmp_path / videos[0].name / "joint_positions.mat", videos[0].joints)
    numbers = _jhmdb.score_predictions(ScoreJhmdbConfig(data=root, predictions=tmp_path))
    assert set(numbers.values()) == {1.0}


def test_real_davis_layouts_are_found(shared_data: Path) -> None:
    root = shared_data / "davis2016-val"
    sequences = _davis.find(root, "auto", "480p", None)
    assert [s.name for s in sequences][:2] == ["blackswan", "bmx-trees"] and len(sequences) == 8
    assert all(s.binary and s.num_objects == 1 for s in sequences)
    assert [s.name for s in _davis.find(root, "480p/val", "480p", None)] == [s.name for s in sequences]
    assert len(_davis.frames_of(root, "480p", sequences[0])) == 50
    split = _davis.find(shared_data / "vos-multi" / "davis2016-split-by-osvos", "auto", "480p", None)
    assert [(s.name, s.num_objects, s.binary) for s in split] == [("bmx-trees", 2, False)]
