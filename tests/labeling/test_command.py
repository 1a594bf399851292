import contextlib
import csv
import json
import shutil

import av
import numpy as np
import pytest
import yaml
from PIL import Image

import videomac
from tests.data.sample_videos import encode
from tests.labeling.made_up import QUICK, joints_of, write_masks, write_points
from videomac import cli
from videomac.errors import UserError
from videomac.evaluate.images import read_ids
from videomac.evaluate.metrics import jaccard
from videomac.labeling import command
from videomac.labeling.labels import Labels, Point


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def outputs(out):
    """The bytes of all that must not depend on interruptions."""
    names = sorted([*out.glob("masks/*.png"), *out.glob("*.csv"), out / "sheet.png", out / "overlay.mp4"])
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in names}


@pytest.fixture
def both(scene, tmp_path):
    """A mask and joints of frame 0."""
    masks = write_masks(tmp_path / "labels", scene, [0])
    return [masks / "00000.png", write_points(tmp_path / "joints.csv", joints_of(scene, [0]))]


def test_masks_and_points_of_one_frame_label_the_video(scene, folder, both, tmp_path):
    out = tmp_path / "out"
    metrics = videomac.propagate_video(folder, labels=both, out=out, **QUICK)
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics["frames"] == 10 and metrics["labelled_frames"] == 1 and len(metrics["label_next"]) == 2
    masks = [read_ids(out / "masks" / f"{frame:05d}.png") for frame in range(10)]
    assert np.array_equal(masks[0], scene.objects[0])
    with Image.open(out / "masks" / "00003.png") as image:
        assert image.mode == "P"
    assert (
        np.mean(
            [jaccard(mask == k, truth == k) for mask, truth in zip(masks, scene.objects, strict=True) for k in (1, 2)]
        )
        > 0.7
    )
    rows = read_table(out / "points.csv")
    assert list(rows[0]) == ["name", "frame", "x", "y", "visible", "confidence"] and len(rows) == 40
    truth = {f"joint{k}": scene.joints[:, 4 * k] for k in range(4)}
    errors = [np.hypot(*(np.array([float(r["x"]), float(r["y"])]) - truth[r["name"]][int(r["frame"])])) for r in rows]
    assert np.median(errors) < 2.5 and max(errors[:4]) == 0
    sure = read_table(out / "confidence.csv")
    assert {row["label"] for row in sure} == {"1", "2", "joint0", "joint1", "joint2", "joint3"} and len(sure) == 60
    with av.open(str(out / "overlay.mp4")) as container:
        assert len(list(container.decode(video=0))) == 10
    assert {"confidence.png", "sheet.png", "config.yaml"} <= {path.name for path in out.iterdir()}
    assert yaml.safe_load((out / "config.yaml").read_text())["command"] == "propagate"
    assert not (out / "work").exists()


def test_several_labelled_frames_count_forwards_and_backwards(scene, folder, tmp_path):
    def score(name, frames):
        labels = write_masks(tmp_path / name, scene, frames)
        videomac.propagate_video(folder, labels=labels, out=tmp_path / f"{name}-out", **QUICK)
        found = [read_ids(tmp_path / f"{name}-out" / "masks" / f"{t:05d}.png") for t in range(10)]
        for frame in frames:
            assert np.array_equal(found[frame], scene.objects[frame])
        return np.array([jaccard(mask == 1, truth == 1) for mask, truth in zip(found, scene.objects, strict=True)])

    first, middle, two = score("first", [0]), score("middle", [6]), score("two", [0, 6])
    assert len(first) == len(middle) == 10 and middle[:6].min() > 0.3  # backwards to the start
    assert two.mean() > first.mean() and two.mean() > middle.mean()
    rows = read_table(tmp_path / "two-out" / "confidence.csv")
    assert {int(row["frame"]) for row in rows if row["agreement"]} == {1, 2, 3, 4, 5}


def test_a_part_keeps_the_videos_numbers(scene, folder, tmp_path):
    joints = joints_of(scene, [4])
    out = tmp_path / "out"
    labels = [write_masks(tmp_path / "m", scene, [4]), write_points(tmp_path / "p.csv", joints)]
    videomac.propagate_video(folder, labels=labels, out=out, start=1, stop=9, every=2, **QUICK)
    assert [path.stem for path in sorted((out / "masks").iterdir())] == ["00001", "00003", "00004", "00005", "00007"]
    assert sorted({int(row["frame"]) for row in read_table(out / "points.csv")}) == [1, 3, 4, 5, 7]


@pytest.mark.parametrize("after", [2, 7, 14])
def test_an_interrupted_video_goes_on_where_it_was(scene, folder, both, tmp_path, monkeypatch, after):
    more = write_masks(tmp_path / "more", scene, [0, 6])
    arguments = {"labels": [more, both[1]], **QUICK}
    videomac.propagate_video(folder, out=tmp_path / "whole", **arguments)
    frames_read = 0
    read = command.Propagator._features

    def interrupted(self, order):
        nonlocal frames_read
        for features in read(self, order):
            frames_read += 1
            if frames_read == after:
                raise KeyboardInterrupt
            yield features

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="--resume"):
        patch.setattr(command.Propagator, "_features", interrupted)
        videomac.propagate_video(folder, out=tmp_path / "parts", **arguments)
    if after == 14:
        assert 0 < len(read_table(tmp_path / "parts" / "points.csv")) < 40
    with pytest.raises(UserError, match="already holds a run"):
        videomac.propagate_video(folder, out=tmp_path / "parts", **arguments)
    videomac.propagate_video(folder, out=tmp_path / "parts", resume=True, **arguments)
    assert outputs(tmp_path / "parts") == outputs(tmp_path / "whole")


def test_resuming_with_other_settings_is_refused(scene, folder, both, tmp_path):
    out = tmp_path / "out"
    videomac.propagate_video(folder, labels=both, out=out, **QUICK)
    again = videomac.propagate_video(folder, labels=both, out=out, resume=True, **QUICK)
    assert again["frames"] == 10
    with pytest.raises(UserError, match=r"cannot resume .*: topk changed since"):
        videomac.propagate_video(folder, labels=both, out=out, resume=True, topk=2, **QUICK)
    write_points(both[1], Labels(points={0: {"joint0": Point(5, 5)}}))
    with pytest.raises(UserError, match="the labels changed since"):
        videomac.propagate_video(folder, labels=both, out=out, resume=True, **QUICK)
    with pytest.raises(UserError, match="no run"):
        videomac.propagate_video(folder, labels=both, out=tmp_path / "nowhere", resume=True, **QUICK)


def test_of_a_video_that_breaks_all_that_can_be_read_is_labelled(scene, folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "00006.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    labels = write_masks(tmp_path / "m", scene, [0])
    with pytest.raises(UserError, match=r"00006\.png: .*; 6 of 10 frames were labelled and are in .*out: repair"):
        videomac.propagate_video(broken, labels=labels, out=out, **QUICK)
    assert [path.stem for path in sorted((out / "masks").iterdir())] == [f"{frame:05d}" for frame in range(6)]
    assert json.loads((out / "metrics.json").read_text())["missing_frames"] == 4
    labels = write_masks(tmp_path / "m2", scene, [0, 9])
    with pytest.raises(UserError, match="9 of 10 frames"):
        videomac.propagate_video(broken, labels=labels, out=tmp_path / "out2", **QUICK)
    Image.new("RGB", (96, 48)).save(broken / "00006.png")
    with pytest.raises(UserError, match=r"size changes from 96x64 to 96x48 at frame 6; 6 of 10 frames"):
        videomac.propagate_video(broken, labels=tmp_path / "m", out=tmp_path / "out3", **QUICK)


def test_a_truncated_file_is_labelled_up_to_its_end(tmp_path):
    path = encode(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    ids = np.zeros((48, 64), np.uint8)
    ids[10:40, 10:40] = 1
    Image.fromarray(ids).save(tmp_path / "first.png")
    out = tmp_path / "out"
    with contextlib.suppress(UserError):  # raised if the last frame that is announced is cut in two
        videomac.propagate_video(path, labels=tmp_path / "first.png", out=out, **QUICK)
    assert 10 < json.loads((out / "metrics.json").read_text())["frames"] < 60
    assert (out / "overlay.mp4").is_file()


def test_a_mask_smaller_than_a_cell_is_still_there_and_warned_of(scene, folder, tmp_path, capsys):
    ids = np.zeros((64, 96), np.uint8)
    row, column = np.argwhere(scene.objects[0] == 1).mean(0).round().astype(int)
    ids[row : row + 2, column : column + 2] = 5
    Image.fromarray(ids).save(tmp_path / "dot.png")
    settings = {**QUICK, "stride": 8}
    videomac.propagate_video(folder, labels=tmp_path / "dot.png", out=tmp_path / "out", **settings)
    assert "object 5 covers 0.1 cells only and may get lost" in capsys.readouterr().err
    settings["short_side"] = "auto"
    videomac.propagate_video(folder, labels=tmp_path / "dot.png", out=tmp_path / "auto", **settings)
    said = capsys.readouterr()
    assert "frames are taken at short side 480" in said.out and "object 5 covers" in said.err


def test_an_object_that_gets_lost_is_named(scene, folder, tmp_path, capsys, monkeypatch):
    labels = write_masks(tmp_path / "m", scene, [0])
    decide = command.Channels.mask

    def losing(self, maps):
        ids = decide(self, maps)
        losing.calls += 1
        return np.where(ids == (2 if losing.calls > 4 else 255), 0, ids).astype(np.uint8)

    losing.calls = 0
    monkeypatch.setattr(command.Channels, "mask", losing)
    videomac.propagate_video(folder, labels=labels, out=tmp_path / "out", **QUICK)
    assert "object 2 is in no pixel from frame 5 on" in capsys.readouterr().err


def test_bad_labels_are_refused_before_anything_is_written(folder, scene, both, tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "rgb.png")
    Image.new("L", (90, 64), 1).save(tmp_path / "small.png")
    for labels, sentence in (
        (tmp_path / "nothing.png", "does not exist"),
        (tmp_path / "rgb.png", "RGB picture"),
        (tmp_path / "small.png", "90x64 pixels but the video is 96x64"),
        (write_masks(tmp_path / "late", scene, [0]), None),
        ([both[0], both[0]], "has a mask already"),
        (folder.parent / "x.txt", "does not exist"),
    ):
        if sentence is None:
            (tmp_path / "late" / "00000.png").rename(tmp_path / "late" / "00010.png")
            sentence = "frame 10 is labelled, but the video has frames 0 to 9"
        with pytest.raises(UserError, match=sentence):
            videomac.propagate_video(folder, labels=labels, out=tmp_path / "out", **QUICK)
        assert not (tmp_path / "out").exists()


def test_the_command_line_takes_the_video_first_and_names_what_is_missing(folder, both, tmp_path, capsys):
    line = [str(folder), "--backbone", "raw-pixels", "--out", str(tmp_path / "out")]
    for missing, sentence in (
        (["--labels", str(both[0])], "nothing is labelled"),
        (["--backbone", "raw-pixels"], "no bac"),
    ):
        given = [*line, "--labels", str(both[0])]
        at = given.index(missing[0])
        with pytest.raises(SystemExit) as ended:
            cli.main(["propagate", *given[:at], *given[at + 2 :]])
        assert ended.value.code == 2 and sentence in capsys.readouterr().err
    config = cli.parse("propagate", [*line, "--labels", *map(str, both), "--formats", "coco", "dlc"])
    assert config.labels == both and config.formats == ["coco", "dlc"] and config.video == folder


def test_any_module_may_be_the_backbone(folder, both, tmp_path):
    import torch

    metrics = videomac.propagate_video(
        folder, labels=both[0], out=tmp_path / "out", **{**QUICK, "backbone": torch.nn.PixelUnshuffle(4)}
    )
    assert metrics["frames"] == 10
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["backbone"] == "PixelUnshuffle"
