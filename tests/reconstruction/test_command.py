import csv
import json
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from videomac import VideoMAC
from videomac.errors import UserError
from videomac.reconstruction.command import run
from videomac.reconstruction.config import ReconstructConfig

GOLDEN = "official-golden/convnextv2/mac-checkpoint.pth"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = VideoMAC("test_convnext", decoder_width=16, mask_ratio=0.5)
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "videomac": {**model.arguments, "image_size": [64, 64]}}, path)
    return path


def test_every_video_gets_a_sheet_and_a_clip_in_its_own_shape(checkpoint, clips, tmp_path):
    out = tmp_path / "out"
    metrics = run(ReconstructConfig(checkpoint.parents[1], clips, out, pairs=2))
    names = {"clip0", "clip1", "clip2", "clip3"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.mp4")} == names
    with av.open(str(out / "clip0.mp4")) as container:
        pictures = list(container.decode(video=0))
    assert len(pictures) == 24
    assert (pictures[0].height, pictures[0].width) == (64, 3 * 96 + 8)  # 72x96 pixels become 64x96
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ["clip0.mp4", "clip1.mp4", "clip2.mp4", "clip3"]
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert metrics["zero_loss"] == pytest.approx(1, abs=0.05) and metrics["videos"] == 4


def test_a_gap_in_time_is_taken(checkpoint, clips, tmp_path, capsys):
    config = ReconstructConfig(checkpoint, clips / "clip0.mp4", tmp_path / "out", pairs=1, frame_gap="125ms")
    metrics = run(config)  # 24 frames per second: 3 frames
    again = run(ReconstructConfig(checkpoint, clips / "clip0.mp4", tmp_path / "same", pairs=1, frame_gap=3))
    assert metrics == again
    assert "frame_gap: 125ms" in (tmp_path / "out" / "config.yaml").read_text()
    assert "flat-patch baseline  " in capsys.readouterr().out


def test_a_seed_gives_the_same_pictures_and_the_ratio_can_be_changed(checkpoint, clips, tmp_path):
    def sheet(name: str, **options: object) -> bytes:
        run(ReconstructConfig(checkpoint, clips / "clip0.mp4", tmp_path / name, pairs=1, **options))
        with Image.open(tmp_path / name / "clip0.png") as image:
            return image.tobytes()

    first = sheet("a")
    assert sheet("b") == first
    assert sheet("c", mask_ratio=0.8) != first


def test_an_out_folder_in_use_is_refused_unless_overwritten(checkpoint, clips, tmp_path):
    config = {"checkpoint": checkpoint, "video": clips / "clip0.mp4", "out": tmp_path, "pairs": 1}
    (tmp_path / "notes.txt").touch()
    run(ReconstructConfig(**config))
    with pytest.raises(UserError, match="already holds a run"):
        run(ReconstructConfig(**config))
    run(ReconstructConfig(**config, overwrite=True))
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"checkpoint": "nowhere"}, "nowhere"),
        ({"video": "nowhere.mp4"}, r"nowhere\.mp4"),
        ({"image_size": 16}, "image_size 16 is smaller than one patch"),
        ({"mask_ratio": 0.99}, "visible"),
        ({"device": "abacus"}, "device 'abacus'"),
    ],
)
def test_bad_input_is_named(checkpoint, clips, tmp_path, changed, sentence):
    config = {"checkpoint": checkpoint, "video": clips / "clip0.mp4", "out": tmp_path / "out"}
    with pytest.raises(UserError, match=sentence):
        run(ReconstructConfig(**{**config, **changed}))


def test_the_authors_checkpoints_can_be_shown(shared_data, clips, tmp_path):
    metrics = run(ReconstructConfig(shared_data / GOLDEN, clips / "clip0.mp4", tmp_path, pairs=1, image_size=64))
    assert metrics["videos"] == 1
