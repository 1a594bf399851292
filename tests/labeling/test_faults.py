"""Files of labels that are damaged or made to do harm: one sentence, no hang, nothing outside the out folder."""

import json
import os

import av
import numpy as np
import pytest
from PIL import Image

import videomac
from tests.labeling.made_up import QUICK
from videomac.errors import UserError
from videomac.labeling.coco import _filled, _run_lengths
from videomac.labeling.formats import read_labels
from videomac.labeling.frames import open_video

SIZE = (64, 96)
HEADS = "scorer,s,s\nbodyparts,nose,nose\ncoords,x,y\n"


def coco(segmentation, track=1, keypoints=None):
    entry = {"id": 1, "image_id": 9, "category_id": 2, "segmentation": segmentation, "track_id": track}
    category = {"id": 2, "name": "fly"}
    if keypoints:
        entry["keypoints"], category["keypoints"] = keypoints, ["nose"]
    images = [{"id": 9, "file_name": "00003.png", "height": SIZE[0], "width": SIZE[1]}]
    return json.dumps({"images": images, "categories": [category], "annotations": [entry]})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.json", coco([[1e18, 5, 5e17, 5, 50, 50]]), "corners far outside the frame"),
        ("a.json", coco([[float("nan")] * 8]), "corners far outside the frame"),
        ("a.json", coco([[1, 2, 3]]), "without three corners"),
        ("a.json", coco({"size": SIZE, "counts": [5, 10]}), "run lengths that do not fill the frame"),
        ("a.json", coco({"size": SIZE, "counts": [-5, 64 * 96 + 5]}), "run lengths that do not fill the frame"),
        ("a.json", coco({"size": [10**9, 10**9], "counts": [5, 10**18]}), "run lengths of a mask of"),
        ("a.json", coco({"size": SIZE, "counts": "zzzzzzzzzzzzzzzz"}), "damaged run lengths"),
        ("a.json", coco([[1, 1, 9, 1, 9, 9]], track=10**30), "ids go from 1 to 255"),
        ("a.json", coco([[1, 1, 9, 1, 9, 9]], track=float("nan")), "no complete COCO file"),
        ("a.json", coco([], keypoints=[float("inf"), 5, 2]), "keypoint nose at"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", "5", "neither COCO nor a list of points"),
        ("a.csv", "name,frame,x,y,visible\na," + "9" * 5000 + ",5,5,1\n", "frame must be a whole number"),
        ("a.csv", "name,frame,x,y,visible\na,0,inf,5,1\n", "finite"),
        ("a.csv", HEADS.replace("nose,nose", "nose") + "0,5,6\n", "heading rows are not of one length"),
        ("a.csv", HEADS.replace("x,y", "x,likelihood") + "0,5,6\n", "nose has not both x and y"),
        ("a.csv", b"scorer,\xff\n", "cannot be read as a table of DeepLabCut"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "not a readable picture"),
    ],
)
def test_damaged_labels_are_one_sentence(folder, tmp_path, name, text, sentence):
    pytest.importorskip("pycocotools")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=sentence) as raised:
        read_labels(tmp_path / name, open_video(folder), 0, SIZE)
    assert len(str(raised.value)) < 500 and "\n" not in str(raised.value)


def test_a_pipe_is_not_waited_for(folder, tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("a.csv", "a.json", "a.slp", "a.png", "masks/00000.png"):
        os.mkfifo(tmp_path / name)
        path = tmp_path / "masks" if name.startswith("masks") else tmp_path / name
        with pytest.raises(UserError, match="no ordinary file"):
            read_labels(path, open_video(folder), 0, SIZE)


def test_a_picture_that_would_fill_the_memory_is_refused(folder, tmp_path, monkeypatch):
    Image.new("L", (600, 600), 1).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="not a readable picture"):
        read_labels(tmp_path / "a.png", open_video(folder), 0, SIZE)


def test_a_frame_has_one_mask(folder, tmp_path):
    for name in ("1.png", "01.png"):
        Image.fromarray(np.ones(SIZE, np.uint8)).save(tmp_path / name)
    with pytest.raises(UserError, match="second mask of frame 1"):
        read_labels(tmp_path, open_video(folder), 0, SIZE)
    (tmp_path / "1.png").rename(tmp_path / "²3.png")
    with pytest.raises(UserError, match="not named by its frame number"):
        read_labels(tmp_path, open_video(folder), 0, SIZE)


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\x1b[2J", "n" * 300])
def test_names_that_cannot_be_shown_are_refused(folder, tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps([{"name": name, "frame": 0, "x": 5, "y": 5}]))
    with pytest.raises(UserError, match="printable characters"):
        videomac.propagate_video(folder, labels=tmp_path / "a.json", out=tmp_path / "out", **QUICK)


def test_a_name_is_never_a_path(folder, tmp_path):
    pytest.importorskip("sleap_io")
    pytest.importorskip("pycocotools")
    (tmp_path / "in").mkdir()
    names = ["../../escaped", str(tmp_path / "absolute")]
    (tmp_path / "in" / "a.json").write_text(json.dumps([{"name": n, "frame": 0, "x": 9, "y": 9} for n in names]))
    before = {path for path in tmp_path.rglob("*")}
    out = tmp_path / "in" / "out"
    formats = ["coco", "dlc", "sleap"]
    videomac.propagate_video(folder, labels=tmp_path / "in" / "a.json", out=out, formats=formats, **QUICK)
    made = {path for path in tmp_path.rglob("*")} - before
    assert all(path == out or out in path.parents for path in made)


def test_run_lengths_are_those_of_pycocotools():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for share in (0.0, 0.01, 0.5, 0.99, 1.0):
        mask = rng.random((37, 53)) < share
        text = tools.encode(np.asfortranarray(mask).astype(np.uint8))["counts"].decode()
        assert np.array_equal(_filled(_run_lengths(text), (37, 53)), mask)
    for _ in range(300):  # no text breaks it
        text = "".join(map(chr, rng.integers(32, 126, 40)))
        try:
            _filled(_run_lengths(text), (37, 53))
        except ValueError:
            continue


def encoded(path, size, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        for number in range(frames):
            picture = np.full((*size, 3), 40 * number % 255, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_of_an_mp4_whose_size_changes_the_part_before_is_labelled(tmp_path):
    both = encoded(tmp_path / "a.ts", SIZE, 8) + encoded(tmp_path / "b.ts", (48, 48), 6)
    (tmp_path / "both.ts").write_bytes(both)
    with av.open(str(tmp_path / "both.ts")) as source, av.open(str(tmp_path / "change.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.pts = packet.dts = number * 7500
            packet.stream = stream
            target.mux(packet)
    mask = np.zeros(SIZE, np.uint8)
    mask[10:40, 10:40] = 1
    Image.fromarray(mask).save(tmp_path / "first.png")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"size changes from 96x64 to 48x48 at frame 8; 8 of 1\d frames were labelled"):
        videomac.propagate_video(tmp_path / "change.mp4", labels=tmp_path / "first.png", out=out, **QUICK)
    assert len(list((out / "masks").iterdir())) == 8
