"""`videomac eval cycle` from footage to numbers and pictures, and what it says of bad input."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.evaluate import cycle_command
from videomac.evaluate.compare import read_run
from videomac.evaluate.config import EvalCycleConfig
from videomac.evaluate.cycle import interval, verdict
from videomac.evaluate.cycle_command import SENTENCES, run
from videomac.evaluate.cycle_footage import choose_clips
from videomac.evaluate.cycle_networks import initialisation_of, run_trained_on
from videomac.models.checkpoint import save_backbone
from videomac.models.resolve import resolve
from videomac.reporting.reading import read_part
from videomac.utils.video_writer import write_frames, write_video

QUICK: dict[str, Any] = {"num_clips": 4, "frames": 3, "frame_gap": 2, "short_side": 64, "stage": 1}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with weights that count as trained: random ones of a seed that nobody else takes."""
    folder = tmp_path_factory.mktemp("networks") / "trained"
    torch.manual_seed(77)
    save_backbone(timm.create_model("test_convnext", num_classes=0), folder, name="test_convnext")
    return folder


def test_what_the_command_leaves(
    clips: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    numbers = run(EvalCycleConfig(clips, str(backbone), out, **QUICK))
    assert json.loads((out / "metrics.json").read_text()) == numbers
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == numbers["clips"] == 4
    assert rows[0]["clip"] == "clip0.mp4, frames 10 to 14" and rows[3]["clip"] == "clip3, frames 10 to 14"
    for key in ("network", "random_weights", "raw_pixels", "staying_still", "difference"):
        values = [float(row[key]) for row in rows]
        assert numbers[key] == pytest.approx(np.mean(values)) and np.ptp(values) > 0
    for row in rows:
        assert float(row["difference"]) == pytest.approx(float(row["network"]) - float(row["random_weights"]))
    assert numbers["network"] != numbers["random_weights"]
    assert numbers["difference_low"] < numbers["difference"] < numbers["difference_high"]
    for name in ("scores.png", "tracks.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300
    printed = capsys.readouterr().out
    assert numbers["verdict"] == verdict(numbers["difference_low"], numbers["difference_high"])
    assert SENTENCES[numbers["verdict"]] in printed
    assert f"stage 1: score {numbers['network']:.3f}, with random weights {numbers['random_weights']:.3f}" in printed

    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored.pop("command") == "eval cycle"
    again = run(EvalCycleConfig(**{**stored, "out": tmp_path / "again"}))
    assert again == numbers
    with pytest.raises(UserError, match="already holds a run"):
        run(EvalCycleConfig(clips, str(backbone), out, **QUICK))
    with pytest.raises(UserError, match="judged without labels, by no benchmark"):
        read_run(out)
    part = read_part(out, most_videos=0)
    assert part.kind == "Evaluation without labels" and part.command.startswith("videomac eval cycle --config ")
    assert part.subject == f"{backbone.name} on {clips.name}" and [media.name for media in part.pictures] == [
        "scores",
        "tracks",
    ]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.1, "better"), (-0.2, -0.01, "worse"), (-0.01, 0.1, "undecided"), (0.0, 0.1, "undecided")],
)
def test_the_verdict_is_that_of_the_interval(low: float, high: float, said: str) -> None:
    assert verdict(low, high) == said


def test_a_network_that_training_has_ruined_is_called_worse(
    clips: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ruined = timm.create_model("local-dir:" + str(backbone), pretrained=True, num_classes=0)
    for weights in ruined.parameters():
        torch.nn.init.zeros_(weights)  # features that are alike everywhere find nothing again
    save_backbone(ruined, tmp_path / "ruined", name="test_convnext")
    options = {**QUICK, "num_clips": 8}
    numbers = run(EvalCycleConfig(clips, str(tmp_path / "ruined"), tmp_path / "out", **options))
    assert numbers["verdict"] == "worse" and numbers["difference_high"] < 0
    assert "less well than random weights" in capsys.readouterr().out


def test_clips_are_spread_over_the_videos_and_within_each(tmp_path: Path) -> None:
    for number, length in enumerate((40, 9, 12, 40)):
        write_frames(tmp_path / f"v{number}", moving_shapes(length, (32, 32))[0])

    def chosen(**settings: Any) -> list[tuple[str, list[int]]]:
        found = choose_clips(tmp_path, frames=4, frame_gap=3, cure="", **settings)
        return [(clip.video.name, clip.numbers) for clip in found]

    # v1 is too short for frames 0, 3, 6, 9.
    assert chosen(num_clips=3) == [("v0", [15, 18, 21, 24]), ("v2", [1, 4, 7, 10]), ("v3", [15, 18, 21, 24])]
    names = [name for name, _ in chosen(num_clips=8)]
    assert names == ["v0"] * 3 + ["v2"] * 3 + ["v3"] * 2
    assert len(chosen(num_clips=200)) == 31 + 3 + 31  # each start once


def test_a_time_between_frames_follows_the_rate_of_each_video(tmp_path: Path) -> None:
    for fps in (10, 30):
        write_video(tmp_path / f"{fps}.mp4", moving_shapes(40, (32, 32))[0], fps)
    found = choose_clips(tmp_path, num_clips=2, frames=3, frame_gap="200ms", cure="")
    assert [np.diff(clip.numbers).tolist() for clip in found] == [[2, 2], [6, 6]]


def test_its_own_random_initialisation(backbone: Path, small_run: Path, tmp_path: Path) -> None:
    """The same architecture, as the library makes it with that seed, and not the weights that were judged."""
    arguments = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}
    torch.manual_seed(5)
    other = timm.create_model("convnext_tiny", num_classes=0, **arguments)
    save_backbone(other, tmp_path / "other", name="convnext_tiny", model_args=arguments)
    for name in (backbone, backbone / "model.safetensors", tmp_path / "other", small_run, small_run / "backbone"):
        judged, _ = resolve(str(name))
        random = initialisation_of(str(name), judged, seed=3)
        assert type(random) is type(judged) and random.pretrained_cfg == judged.pretrained_cfg
        states = judged.state_dict(), random.state_dict()
        assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}
        assert not all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    torch.manual_seed(3)
    expected = timm.create_model("test_convnext", num_classes=0).state_dict()
    random = initialisation_of(str(backbone), resolve(backbone)[0], seed=3)
    assert all(torch.equal(expected[key], value) for key, value in random.state_dict().items())


def test_the_initialisation_of_the_authors_network(shared_data: Path) -> None:
    path = str(shared_data / "official-golden" / "convnextv2" / "mac-checkpoint.pth")
    judged, _ = resolve(path)
    random = initialisation_of(path, judged, seed=0)
    assert random.state_dict().keys() == judged.state_dict().keys() and hasattr(random, "stage_norms")


def test_the_interval_of_a_mean() -> None:
    assert interval([0.25] * 7) == (0.25, 0.25)
    values = np.random.default_rng(1).normal(size=400)
    low, high = interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.01) and high == pytest.approx(
        values.mean() + half, abs=0.01
    )
    assert interval(values) == (low, high)


def test_a_clip_that_cannot_be_read_is_left_out(
    backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    footage = tmp_path / "footage"
    for name in ("a", "b", "c", "d"):
        write_frames(footage / name, moving_shapes(9, (72, 96), seed=ord(name))[0])
    broken = sorted((footage / "b").iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:200])
    numbers = run(EvalCycleConfig(footage, str(backbone), tmp_path / "out", **QUICK))
    assert numbers["clips"] == 2  # b, and d, which pieces of b were to go into
    assert "left out b, frames 2 to 6" in caplog.text and "left out d" in caplog.text


def test_bad_input(clips: Path, backbone: Path, tmp_path: Path) -> None:
    def complaint(data: Path = clips, name: Any = backbone, **settings: Any) -> str:
        with pytest.raises(UserError) as caught:
            run(EvalCycleConfig(data, str(name), tmp_path / "out", **{**QUICK, **settings}))
        assert not (tmp_path / "out").exists(), "found out too late"
        return str(caught.value)

    assert "raw pixels have no weights to compare" in complaint(name="raw-pixels")
    assert "test_convnext has random weights itself" in complaint(name="test_convnext")
    assert "unknown backbone" in complaint(name="test_convnet")
    assert "has stages 1 to 4: stage 5 does not exist" in complaint(stage=5)
    assert "no multiple" in complaint(stage=3, stride=24, short_side=192)
    assert "has kept no checkpoint of an epoch, so there is no --curve" in complaint(curve=True)
    assert "no such folder or video file" in complaint(data=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no video in" in complaint(data=tmp_path / "empty")
    long = complaint(frames=20)
    assert "no video in" in long and "is long enough for 20 frames 2 apart: the longest has 24 frames" in long
    assert "has room for one clip" in complaint(data=clips / "clip0.mp4", frames=2, frame_gap=23)
    assert "num_clips must lie between 2 and 1024" in complaint(num_clips=1)
    assert "frames must be at least 2" in complaint(frames=1)
    assert "short_side must be at least 64" in complaint(short_side=40)
    assert "frame_gap must be" in complaint(frame_gap="soon")


def test_a_run_has_a_curve_and_is_told_of_its_training_footage(
    clips: Path, small_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (small_run, small_run / "backbone", small_run / "checkpoints" / "last.ckpt"):
        assert run_trained_on(str(name), clips) == small_run
    assert run_trained_on(str(small_run), tmp_path) is None and run_trained_on("resnet18", clips) is None
    (tmp_path / "config.yaml").write_text("of: something else")
    assert run_trained_on(str(tmp_path), clips) is None
    out = tmp_path / "out"
    numbers = run(EvalCycleConfig(clips, str(small_run), out, curve=True, **{**QUICK, "num_clips": 2}))
    assert f"{small_run} was trained on these videos, which flatters it" in caplog.text

    with (out / "curve.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    kept = sorted(int(path.stem[-4:]) for path in (small_run / "checkpoints").glob("epoch-*.ckpt"))
    assert [row["epoch"] for row in rows] == [0, *kept] and len(kept) > 1
    assert rows[0]["score"] == numbers["random_weights"]
    assert rows[-1]["score"] == numbers["network"]  # the last epoch was kept
    assert rows[-1]["difference"] == numbers["difference"] and rows[-1]["low"] == numbers["difference_low"]
    with Image.open(out / "curve.png") as picture:
        assert min(picture.size) > 300


SIX = {**QUICK, "num_clips": 6}
OF_A_CLIP, EPOCHS = 3, 2
"""Networks that are scored on a clip, and epochs that `small_run` has kept."""
NUMBERS = ("metrics.csv", "metrics.json", "curve.csv")


class Stopped:
    """Counts the journeys, and stops before one of them as Ctrl-C would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
        self.count, self.before, self.travel = 0, before, cycle_command.travel
        monkeypatch.setattr(cycle_command, "travel", self)

    def __call__(self, *given: Any) -> Any:
        if self.count == self.before:
            raise KeyboardInterrupt
        self.count += 1
        return self.travel(*given)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_interrupted_evaluation_goes_on_to_the_same_numbers(
    clips: Path, small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "broken"
    run(EvalCycleConfig(clips, str(small_run), whole, curve=True, **SIX))

    def go_on(before: int, **changed: Any) -> int:
        """Journeys of a call that is stopped, or -1 as what none is stopped before."""
        with monkeypatch.context() as patch:
            stopped = Stopped(patch, before)
            call = EvalCycleConfig(clips, str(small_run), out, **SIX, **changed)
            if before >= 0:
                with pytest.raises(KeyboardInterrupt, match=f"the same command and --resume; {out} has what is fin"):
                    run(call)
            else:
                run(call)
            return stopped.count

    go_on(5 * OF_A_CLIP + 1, curve=True)  # within the last clip
    assert [row["clip"] for row in rows(out / "metrics.csv")] == [row["clip"] for row in rows(whole / "metrics.csv")][
        :5
    ]
    assert not (out / "metrics.json").exists()
    with pytest.raises(UserError, match="already holds a run"):
        go_on(-1, curve=True)
    capsys.readouterr()
    # Of the five finished clips three are in the picture, which two networks are in.
    go_on(3 * 2 + OF_A_CLIP + 6 + 1, curve=True, resume=True)  # within the last epoch of the curve
    assert "5 of 6 clips are done already" in capsys.readouterr().out
    assert (out / "tracks.png").read_bytes() == (whole / "tracks.png").read_bytes()
    assert [row["epoch"] for row in rows(out / "curve.csv")] == ["0", "1"]
    assert not (out / "metrics.json").exists()
    assert go_on(-1, curve=True, resume=True) == 6
    for name in NUMBERS:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("scores.png", "curve.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    (out / "curve.csv").unlink()
    assert go_on(-1, resume=True) == 0  # finished; as a call without --curve leaves it
    assert go_on(-1, curve=True, resume=True) == 6 * EPOCHS
    for name in NUMBERS:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_what_has_changed_cannot_be_resumed(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Path
) -> None:
    data, network, out = tmp_path / "clips", tmp_path / "network", tmp_path / "out"
    shutil.copytree(clips, data)

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        save_backbone(timm.create_model("test_convnext", num_classes=0), network, name="test_convnext")

    def again(**changed: Any) -> None:
        run(EvalCycleConfig(**{"data": data, "backbone": str(network), "out": out, "resume": True, **SIX, **changed}))

    save(1)
    with pytest.raises(UserError, match=r"no evaluation to resume in .*out \(no config.yaml\): leave --resume out"):
        again()
    assert not out.exists()
    with monkeypatch.context() as patch:
        Stopped(patch, OF_A_CLIP)
        with pytest.raises(KeyboardInterrupt):
            again(resume=False)
    with pytest.raises(UserError, match="resume and overwrite exclude each other"):
        again(overwrite=True)
    with pytest.raises(UserError, match=r"cannot resume .*out: frames, stage changed since; take another --out"):
        again(frames=2, stage=2)
    save(2)
    with pytest.raises(UserError, match=r"cannot resume .*out: the weights changed since"):
        again()
    save(1)
    shutil.move(data / "clip1.mp4", data / "clip9.mp4")
    with pytest.raises(UserError, match=r"cannot resume .*out: the clips changed since"):
        again()
    shutil.move(data / "clip9.mp4", data / "clip1.mp4")
    assert len(rows(out / "metrics.csv")) == 1
    again(data=shutil.move(data, tmp_path / "moved"), batch_size=8)
    assert len(rows(out / "metrics.csv")) == 6
    with pytest.raises(UserError, match="was made by `videomac pretrain`"):
        again(out=small_run, data=tmp_path / "moved")
