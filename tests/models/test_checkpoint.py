from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.convnext import ConvNeXt

from videomac.errors import UserError
from videomac.models.backbones import create_backbone
from videomac.models.checkpoint import last_checkpoint, load_backbone, load_videomac, save_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.official import StageNormConvNeXt
from videomac.models.videomac import VideoMAC

SMALL = {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]}
FRAMES = torch.linspace(-2, 2, 2 * 3 * 64 * 96).view(2, 3, 64, 96)


def small_model(**settings: Any) -> VideoMAC:
    torch.manual_seed(0)
    model = VideoMAC("convnextv2_tiny", decoder_width=8, backbone_args=SMALL, **settings)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def save_run(model: VideoMAC, path: Path) -> Path:
    """What a run leaves: Lightning's checkpoint with the settings beside the weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "videomac": {**model.arguments, "image_size": [64, 96]}, "epoch": 3}, path)
    return path


def dense(model: VideoMAC, which: str) -> torch.Tensor:
    features: torch.Tensor = getattr(model, which).encoder(FRAMES)
    return features


@pytest.mark.parametrize(
    ("name", "model_args"),
    [
        ("convnextv2_atto", {}),
        ("efficientnet_lite0", {}),
        ("resnet18", {"layers": [1, 1, 1, 1]}),
        ("resnet18_patchify", {"layers": [1, 1, 1, 1]}),
        ("convnextv2_small_isotropic", {"depth": 2, "dim": 16}),
        ("convnextv2_atto", {"output_stride": 16}),
        ("resnet18", {"layers": [1, 1, 1, 1], "output_stride": 8}),
    ],
)
def test_export_opens_in_timm(name: str, model_args: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = SparseEncoder(create_backbone(name, **model_args)).eval()
    assert save_backbone(encoder, tmp_path / "backbone", name=name, model_args=model_args) == []
    expected = encoder(FRAMES)

    opened = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True).eval()
    strict = timm.create_model(name, num_classes=0, **model_args).eval()
    strict.load_state_dict(load_file(tmp_path / "backbone" / "model.safetensors"), strict=True)
    classifier = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True, num_classes=7).eval()
    ours = load_backbone(tmp_path / "backbone")
    for network in (opened, strict, classifier, ours):
        torch.testing.assert_close(network.forward_features(FRAMES), expected)
    assert classifier(FRAMES).shape == (2, 7)
    assert opened.num_classes == ours.num_classes == 0
    assert list(opened.pretrained_cfg["mean"]) == [0.485, 0.456, 0.406]
    assert type(ours) is type(strict)
    assert {type(a) for a in ours.modules()} == {type(a) for a in strict.modules()}, "no layer of the engine is left"


def test_export_of_a_network_with_other_arguments(tmp_path: Path) -> None:
    model = small_model()
    assert save_backbone(model, tmp_path, name="convnextv2_tiny") == []
    opened = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    torch.testing.assert_close(opened.forward_features(FRAMES), dense(model, "online"))
    torch.testing.assert_close(load_backbone(tmp_path).forward_features(FRAMES), dense(model, "online"))


def test_a_finer_stride_is_kept_by_the_export_of_a_module_which_nobody_says_it_of(tmp_path: Path) -> None:
    save_backbone(create_backbone("test_convnext", 16), tmp_path / "module", name="test_convnext")
    name = f"local-dir:{tmp_path / 'module'}"
    save_backbone(create_backbone(name), tmp_path / "again", name=name)
    for folder in (tmp_path / "module", tmp_path / "again"):
        assert load_backbone(folder).forward_features(FRAMES).shape[-2:] == (4, 6)
    save_backbone(create_backbone("test_convnext"), tmp_path / "plain", name="test_convnext")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["model_args"] == {}


def test_a_finer_stride_is_kept_by_runs_and_exports(tmp_path: Path) -> None:
    model = small_model(output_stride=8)
    expected = dense(model, "online")
    assert expected.shape == (2, 16, 8, 12)
    run = save_run(model, tmp_path / "run" / "checkpoints" / "last.ckpt").parents[1]
    assert save_backbone(model, tmp_path / "export", name="convnextv2_tiny") == []
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_args"] == {**SMALL, "output_stride": 8}
    opened = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    for network in (opened, load_backbone(tmp_path / "export"), load_backbone(run)):
        torch.testing.assert_close(network.forward_features(FRAMES), expected)
    again = load_videomac(run)
    assert again.arguments == model.arguments
    assert (again.online.encoder.stride, again.patch_size) == (8, 32)
    mask = model.sample_mask(2, (64, 96))
    torch.testing.assert_close(again.online(FRAMES, mask), model.online(FRAMES, mask))


def test_the_tag_of_older_weights_is_dropped(tmp_path: Path) -> None:
    encoder = SparseEncoder(create_backbone("convnextv2_atto.fcmae"))
    save_backbone(encoder, tmp_path, name="convnextv2_atto.fcmae")
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "convnextv2_atto"
    assert timm.create_model(f"local-dir:{tmp_path}", pretrained=True).pretrained_cfg["tag"] == "videomac"


def test_export_under_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not those of convnextv2_atto: stem\.0\.weight has shape \[4, 3, 4, 4\]"):
        save_backbone(small_model(), tmp_path, name="convnextv2_atto", model_args={})
    with pytest.raises(ValueError, match=r"not those of resnet18: conv1\.weight is missing"):
        save_backbone(small_model(), tmp_path, name="resnet18", model_args={})
    assert not list(tmp_path.iterdir())


def test_stage_norms_are_reported_as_left_out(tmp_path: Path) -> None:
    model = small_model(preset="official")
    left_out = save_backbone(model, tmp_path / "backbone", name="convnextv2_tiny")
    assert left_out == [f"stage_norms.{stage}.{kind}" for stage in range(4) for kind in ("weight", "bias")]
    assert type(load_backbone(tmp_path / "backbone")) is ConvNeXt
    # From the run itself they are kept, and dense frames give what the encoder gives.
    faithful = load_backbone(save_run(model, tmp_path / "run" / "checkpoints" / "last.ckpt"))
    assert type(faithful) is StageNormConvNeXt
    for frame in FRAMES[:, None]:  # one by one, since the encoder's GRN runs over the batch
        torch.testing.assert_close(faithful.forward_features(frame), model.online.encoder(frame))


@pytest.mark.parametrize("which", ["online", "target"])
def test_backbone_of_a_run(which: str, tmp_path: Path) -> None:
    model = small_model()
    file = save_run(model, tmp_path / "checkpoints" / "last.ckpt")
    for path in (tmp_path, str(tmp_path), file):
        backbone = load_backbone(path, which)  # type: ignore[arg-type]
        assert type(backbone) is ConvNeXt
        assert not backbone.training
        torch.testing.assert_close(backbone.forward_features(FRAMES), dense(model, which))


def test_the_whole_model_of_a_run(tmp_path: Path) -> None:
    model = small_model(gamma=0.25, symmetric=False)
    save_run(model, tmp_path / "checkpoints" / "last.ckpt")
    found = load_videomac(tmp_path)
    assert found.arguments == model.arguments
    assert all(torch.equal(found.state_dict()[key], value) for key, value in model.state_dict().items())


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("epoch=2-step=20.ckpt", "epoch=10-step=100.ckpt", "epoch=9-step=90.ckpt"):
        torch.save({}, folder / name)
    assert last_checkpoint(tmp_path).name == "epoch=10-step=100.ckpt"
    torch.save({}, folder / "last.ckpt")
    assert last_checkpoint(tmp_path).name == "last.ckpt"


def test_pretrained_weights_are_not_fetched_again(tmp_path: Path) -> None:
    model = small_model()
    model.arguments["backbone_args"] = {**SMALL, "pretrained": True}
    save_run(model, tmp_path / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(load_backbone(tmp_path).forward_features(FRAMES), dense(model, "online"))
    save_backbone(model, tmp_path / "backbone", name="convnextv2_tiny")
    assert json.loads((tmp_path / "backbone" / "config.json").read_text())["model_args"] == SMALL


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def refused(path: Path, message: str, which: str = "online") -> None:
        with pytest.raises(UserError, match=message) as caught:
            load_backbone(path, which)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)

    refused(tmp_path, r"neither a run's folder \(no checkpoints/\*\.ckpt\) nor an exported backbone")
    refused(tmp_path / "missing.ckpt", "missing.ckpt does not exist")

    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    refused(tmp_path / "other.ckpt", "is no VideoMAC checkpoint")

    file = save_run(small_model(), tmp_path / "run.ckpt")
    whole = file.read_bytes()
    for length in (len(whole) // 2, 10, 0):
        (tmp_path / "half.ckpt").write_bytes(whole[:length])
        refused(tmp_path / "half.ckpt", r"half\.ckpt is damaged")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    refused(tmp_path / "page.pth", r"page\.pth is damaged or not a torch checkpoint")

    content = torch.load(file, weights_only=True)
    content["videomac"]["backbone_args"] = {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 24]}
    torch.save(content, file)
    refused(file, r"does not fit its own settings \(convnextv2_tiny\): online\.encoder\.backbone\.\S+ has shape")
    content["videomac"] = {"backbone": "resnet18", "surprise": 1}
    torch.save(content, file)
    refused(file, "written by another version of videomac: .*surprise")

    save_backbone(small_model(), tmp_path / "backbone", name="convnextv2_tiny")
    refused(tmp_path / "backbone", "holds no target network", "target")
    weights = tmp_path / "backbone" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(tmp_path / "backbone", r"model\.safetensors is damaged")
    weights.unlink()
    refused(tmp_path / "backbone", r"model\.safetensors does not exist")
    (tmp_path / "backbone" / "config.json").write_text("{}")
    refused(tmp_path / "backbone", "is not a timm configuration")


def test_exported_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_backbone(small_model(), tmp_path, name="convnextv2_tiny")
    config = json.loads((tmp_path / "config.json").read_text())
    config["architecture"], config["model_args"] = "resnet18", {}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError,
        match=r"does not hold a resnet18: conv1\.weight is missing; bn1\.weight is .*, and \d+ more like these",
    ):
        load_backbone(tmp_path)


def test_unknown_network_of_the_pair() -> None:
    with pytest.raises(ValueError, match='"online" or "target"'):
        load_backbone("anywhere", "teacher")  # type: ignore[arg-type]


def test_exporting_draws_no_random_number(tmp_path):
    """It builds a network to compare with, and a run that exports in the middle must stay the same run."""
    encoder = SparseEncoder("test_convnext")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    save_backbone(encoder, tmp_path, name="test_convnext")
    assert torch.equal(torch.get_rng_state(), before)
