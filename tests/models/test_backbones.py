from __future__ import annotations

import copy

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.layers import LayerNorm2d
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videomac.errors import UserError
from videomac.models.backbones import create_backbone

OWN = ["resnet18_patchify", "resnet50_patchify", "convnextv2_small_isotropic", "convnext_tiny_no_layer_scale"]
# Table 2: millions of parameters and 1e9 multiply-adds with the 1000-way head at 224 px.
TABLE_2 = {
    "resnet18": (11.69, 1.81),
    "resnet50": (25.56, 4.09),
    "convnextv2_tiny": (28.64, 4.46),
    "convnextv2_small": (50.32, 8.68),
    "convnextv2_small_isotropic": (22.36, 4.29),
    "resnet18_patchify": (11.68, 1.71),
    "resnet50_patchify": (25.55, 3.98),
}


@pytest.mark.parametrize("name", TABLE_2)
def test_parameters_and_multiply_adds_of_table_2(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 3, 224, 224))
    parameters = sum(p.numel() for p in model.parameters())
    assert (round(parameters / 1e6, 2), round(counter.get_total_flops() / 2e9, 2)) == TABLE_2[name]


@pytest.mark.parametrize("name", OWN)
def test_own_networks_behave_like_timm_networks(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0).eval()
    frames = torch.randn(1, 3, 64, 96)
    stride = model.feature_info[-1]["reduction"]
    features = model.forward_features(frames)
    assert features.shape == (1, model.num_features, 64 // stride, 96 // stride)
    assert model.pretrained_cfg["architecture"] == name
    assert model(frames).shape == (1, model.num_features)
    model.reset_classifier(5)
    assert model(frames).shape == (1, 5)
    assert model.get_classifier().out_features == 5
    pyramid = timm.create_model(name, features_only=True)
    for level, channels, reduction in zip(
        pyramid(frames), pyramid.feature_info.channels(), pyramid.feature_info.reduction(), strict=True
    ):
        assert level.shape == (1, channels, 64 // reduction, 96 // reduction)
    last, levels = model.forward_intermediates(frames)
    torch.testing.assert_close(last, features)
    assert len(levels) == len(pyramid.feature_info.channels())
    copy.deepcopy(model).load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", ["resnet18_patchify", "resnet50_patchify"])
def test_patchify_resnet_is_what_the_authors_ran(name: str) -> None:
    model = create_backbone(name)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.MaxPool2d) for module in model.modules())
    assert sum(isinstance(module, LayerNorm2d) for module in model.modules()) == sum(
        isinstance(module, nn.Conv2d) for module in model.modules()
    )
    stem = model.conv1
    assert (stem.kernel_size, stem.stride, stem.bias is not None) == ((4, 4), (4, 4), True)
    inner = [module for key, module in model.named_modules() if isinstance(module, nn.Conv2d) and key != "conv1"]
    assert all(module.bias is None for module in inner)
    assert all(
        module.kernel_size == (3, 3) for module in inner if module.stride == (2, 2) and module.kernel_size[0] > 1
    )


def test_no_layer_scale_means_no_gamma() -> None:
    with torch.device("meta"):
        names = create_backbone("convnext_tiny_no_layer_scale").state_dict()
    assert not any(name.endswith(".gamma") for name in names)


def test_settings_reach_timm() -> None:
    with torch.device("meta"):
        model = create_backbone("convnextv2_small_isotropic", depth=2, dim=32, drop_path_rate=0.1)
    assert len(model.stages[0].blocks) == 2
    assert model.num_features == 32
    assert model.stages[0].blocks[1].drop_path.drop_prob == pytest.approx(0.1)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("name", ["convnextv2_atto", "resnet18", "resnet50_patchify", "convnext_tiny_no_layer_scale"])
def test_a_finer_stride_changes_no_weight(name: str, stride: int) -> None:
    with torch.device("meta"):
        fine, plain = create_backbone(name, stride), create_backbone(name)
        features = fine.eval().forward_features(torch.zeros(1, 3, 64, 96))
    assert features.shape == (1, plain.num_features, 64 // stride, 96 // stride)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (fine, plain)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "stride"),
    [("densenet121", 16), ("vgg16", 16), ("ghostnet_100", 8), ("resnet18", 12), ("convnextv2_atto", -8)],
)
def test_a_stride_that_timm_does_not_build_is_one_sentence(name: str, stride: int) -> None:
    with pytest.raises(UserError, match=rf"^timm does not build {name} with output_stride {stride}: leave it out"):
        create_backbone(name, stride)


def test_other_faults_are_not_taken_for_the_strides() -> None:
    with pytest.raises(TypeError, match="depth_of_nothing"):
        create_backbone("resnet18", 16, depth_of_nothing=3)


def test_unknown_name_offers_the_closest() -> None:
    with pytest.raises(UserError, match=r"unknown backbone 'convnextv2_atta': did you mean convnextv2_atto"):
        create_backbone("convnextv2_atta")
    with pytest.raises(UserError, match=r"see timm\.list_models"):
        create_backbone("zzzzzz")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("resnet18.nope", "Invalid pretrained tag"), ("local-dir:nowhere", "nowhere"), ("resnet18.a1_in1k", "no network")],
)
def test_weights_that_timm_cannot_get_are_one_sentence(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("There is no network. Please check your connection and try again.")

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    with pytest.raises(
        UserError, match=rf"timm cannot get the weights of {name} \(.*{reason}.*\): check the name"
    ) as told:
        create_backbone(name, pretrained=True)
    assert "\n" not in str(told.value)


def test_other_errors_of_a_network_are_not_taken_for_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of its own")

    monkeypatch.setattr("timm.create_model", broken)
    with pytest.raises(RuntimeError, match="a fault of its own"):
        create_backbone("resnet18")
