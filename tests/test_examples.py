import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import videomac
from videomac.data.discovery import find_videos
from videomac.models.checkpoint import load_backbone, save_backbone

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # two workers, where there may be one core
def test_the_plain_loop_gives_the_numbers_of_the_command(clips, tmp_path):
    spec = importlib.util.spec_from_file_location("plain_pytorch", EXAMPLES / "plain_pytorch.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    settings = {"data": clips, "backbone": "test_convnext", "image_size": 64, "epochs": 2}
    losses = list(example.pretrain(**settings, out=tmp_path / "plain", batch_size=32))

    trainer = {"accelerator": "auto"}
    videomac.pretrain(
        **settings, out=tmp_path / "run", global_batch_size=32, held_out=0, workers=0, devices=1, trainer=trainer
    )
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(losses) == 4
    for row, step in zip(rows, losses, strict=True):
        for name, value in step.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6), name
    assert rows[0]["loss"] != rows[-1]["loss"]
    plain, ours = load_backbone(tmp_path / "plain").state_dict(), load_backbone(tmp_path / "run").state_dict()
    assert max((plain[key] - ours[key]).abs().max().item() for key in plain) < 1e-6


# What others do with the weights --------------------------------------------------------------------------------------


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """An exported folder whose weights are those of no fresh network."""
    torch.manual_seed(0)
    encoder = videomac.SparseEncoder("test_convnext")
    for parameter in encoder.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("exported") / "backbone"
    save_backbone(encoder, folder, name="test_convnext")
    return folder


def holds_the_weights(network: torch.nn.Module, folder: Path) -> bool:
    """Whether every tensor of timm's features-only network is one of the file, under its own or timm's flat name."""
    file = {key.replace(".", "_"): value for key, value in load_file(folder / "model.safetensors").items()}
    own = {key.replace(".", "_"): value for key, value in network.state_dict().items()}
    return len(own) > 20 and all(torch.equal(value, file[key]) for key, value in own.items())


def test_segmentation_models_pytorch_takes_the_weights_and_learns(exported):
    example = load_example("segmentation")
    torch.manual_seed(0)
    model = example.build(str(exported))
    assert holds_the_weights(model.encoder.model, exported)
    before = model.encoder.model.state_dict()["stem_0.weight"].clone()
    test = example.pictures(4)
    losses = list(example.train(model, steps=10, batch_size=4))
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    frames, truth = test
    perfect = torch.nn.functional.one_hot(truth, 4).permute(0, 3, 1, 2)
    assert example.mean_iou(torch.nn.Identity(), perfect.float(), truth) == pytest.approx(1)
    assert 0 < example.mean_iou(model, frames, truth) < 1
    assert not torch.equal(before, model.encoder.model.state_dict()["stem_0.weight"]), "the encoder is trained too"


def test_torchvision_detection_takes_the_weights_and_learns(exported):
    example = load_example("detection")
    torch.manual_seed(0)
    detector = example.build(str(exported), min_size=64)
    assert holds_the_weights(detector.backbone.body, exported)
    losses = list(example.train(detector, steps=5))
    assert sum(losses[-2:]) < sum(losses[:2])
    detector.eval()
    with torch.no_grad():
        found = detector(example.pictures(1)[0])[0]
    assert found.keys() == {"boxes", "labels", "scores"} and found["boxes"].shape[1] == 4


def test_the_boxes_of_the_detection_example_enclose_the_shapes():
    example = load_example("detection")
    from videomac.data.synthetic import moving_shapes

    ids = moving_shapes(1, (128, 160), num_objects=3, seed=5)[1][0]
    target = example.pictures(1, seed=5)[1][0]
    for (left, top, right, bottom), label in zip(target["boxes"].int().tolist(), target["labels"], strict=True):
        assert (ids[top:bottom, left:right] == label).sum() == (ids == label).sum()
        assert (ids[top, left:right] == label).any() and (ids[bottom - 1, left:right] == label).any()


def test_a_frame_finds_its_own_clip(exported, clips, tmp_path, capsys):
    example = load_example("video_retrieval")
    backbone = load_backbone(exported)
    videos = find_videos(clips)
    index = example.Index(backbone, videos, frames_per_video=3)
    for video in videos:
        frame = video.read([2])[0]  # none of the indexed ones
        assert 2 not in [number for other, number in index.places if other is video]
        assert index.search(frame)[0][0].name == video.name
    Image.fromarray(videos[1].read([2])[0].permute(1, 2, 0).numpy()).save(tmp_path / "query.png")
    example.main(str(exported), str(clips), str(tmp_path / "query.png"), str(tmp_path / "new" / "sheet.png"))
    assert videos[1].name in capsys.readouterr().out.splitlines()[0]
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert image.width > 4 * 384


def test_a_broken_clip_is_skipped_and_the_others_are_searched(exported, clips, tmp_path, capsys):
    example = load_example("video_retrieval")
    whole = (clips / "clip0.mp4").read_bytes()
    for number in range(2):
        (tmp_path / f"good{number}.mp4").write_bytes((clips / f"clip{number}.mp4").read_bytes())
    broken = bytearray(whole)
    start = broken.index(b"mdat") + 4
    broken[start : start + 4000] = bytes(4000)  # the header is whole, the pictures are not
    (tmp_path / "broken.mp4").write_bytes(bytes(broken))
    index = example.Index(load_backbone(exported), find_videos(tmp_path), frames_per_video=2)
    assert [video.name for video, _ in index.places] == ["good0.mp4"] * 2 + ["good1.mp4"] * 2
    assert len(index.vectors) == 4 and "skipped" in capsys.readouterr().out
