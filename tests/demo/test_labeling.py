import av
import numpy as np
import pytest
import torch
from PIL import Image

from videomac.demo import labeling
from videomac.demo.command import find_clips
from videomac.evaluate.images import read_ids, write_ids
from videomac.models.resolve import resolve
from videomac.train.config import PretrainConfig
from videomac.train.pretrain import build_model


def test_the_drawn_labels_have_a_head_and_a_body_in_every_frame():
    for frame in (labeling.FIRST, *labeling.JUDGED):
        ids = read_ids(labeling.DRAWN / f"{frame:05d}.png")
        assert ids.shape == (720, 1280) and np.unique(ids).tolist() == [0, 1, 2]
        assert (labeling.DRAWN / f"{frame:05d}.png").stat().st_size < 10_000


def test_three_kinds_of_features_are_compared(tmp_path, monkeypatch):
    truth = {frame: read_ids(labeling.DRAWN / f"{frame:05d}.png") for frame in labeling.JUDGED}
    asked = []

    def right_by_the_network_only(video, labels, backbone, out, start, stop, **options):
        asked.append((str(backbone), labels.name, start, stop))
        (out / "masks").mkdir(parents=True)
        for frame in range(start, stop):
            mask = truth.get(frame, truth[44]) if backbone == "run" else np.zeros((720, 1280), np.uint8)
            write_ids(out / "masks" / f"{frame:05d}.png", mask)

    monkeypatch.setattr(labeling, "propagate_video", right_by_the_network_only)
    monkeypatch.setattr(labeling, "WIDTH", 64)
    clip = next(path for path in find_clips() if path.name == labeling.CLIP)
    scores = labeling.label_clip("run", clip, "resnet18", tmp_path)
    assert scores == {"trained": 100, "random weights": 0, "raw pixels": 0}
    assert asked == [(name, "00016.png", 16, 61) for name in ("run", "resnet18", "raw-pixels")]
    with Image.open(tmp_path / "labels.png") as sheet:
        assert sheet.width > 4 * 384
    with av.open(str(tmp_path / "labels.mp4")) as container:
        assert container.streams.video[0].frames == 45 and container.streams.video[0].width == 3 * 64


def test_random_weights_are_those_that_the_training_began_with(tmp_path):
    model = build_model(PretrainConfig(data=tmp_path, backbone="resnet18", out=tmp_path / "out", decoder_width=32))
    begun, _ = resolve("resnet18", seed=0)
    pairs = zip(model.online.encoder.backbone.state_dict().values(), begun.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("frame", [44, 60])
def test_the_rabbit_moves(frame):
    first, later = (read_ids(labeling.DRAWN / f"{number:05d}.png") == 1 for number in (16, frame))
    assert not (first & later).sum() > 0.3 * first.sum()
