"""Feature maps: stages, strides without touching weights, ViTs, any module."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.protocols import Stride
from videomac.evaluate.stride import stages_of
from videomac.models import official
from videomac.models.resolve import resolve

CONVNETS = ["resnet18", "convnextv2_atto", "tf_efficientnet_lite0", "regnetx_002", "resnet18_patchify"]


def network(name: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = resolve(name, **settings)[0].eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # some are initialised to 0, which would hide their branch
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


@pytest.mark.parametrize("name", CONVNETS)
def test_a_dilated_network_repeats_the_plain_one_at_every_second_cell(name: str) -> None:
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frames = torch.rand(1, 3, 96, 160)
    for stage in (3, 4):
        plain = FeatureExtractor(model, stage=stage)
        assert plain.stride == 2 ** (stage + 1)
        fine = FeatureExtractor(model, stage=stage, stride=8, dilate=True)
        with torch.inference_mode():
            expected, found = plain(frames), fine(frames)
        step = plain.stride // 8
        assert found.shape == (1, plain.channels, 12, 20)
        torch.testing.assert_close(found[..., ::step, ::step], expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert max(module.stride[0] for module in model.modules() if isinstance(module, nn.Conv2d)) > 1


@pytest.mark.parametrize(
    ("name", "output_stride", "settings"),
    [
        ("resnet18", 16, {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}),
        ("resnet18", 8, {"layers": (1, 1, 1, 2), "channels": (8, 16, 24, 32)}),
        ("resnet50", 16, {"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16)}),  # no layer left to dilate
        ("convnextv2_atto", 16, {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    ],
)
def test_a_network_of_a_finer_stride_has_the_plain_networks_stages(
    name: str, output_stride: int, settings: dict[str, Any]
) -> None:
    """What timm's `output_stride` does is what taking strides from the plain network does: the same maps, by number."""
    plain, fine = network(name, **settings), network(name, **settings, output_stride=output_stride)
    fine.load_state_dict(plain.state_dict())
    frames = torch.rand(1, 3, 64, 96)
    for stage in (2, 3, 4, -1):
        native = min(2 ** (stage % 5 + 1), output_stride)
        cases: list[tuple[Stride, int]] = [("native", native), (4, 4), (32, 32)]
        for stride, expected_stride in cases:
            found = FeatureExtractor(fine, stage=stage, stride=stride, dilate=True)
            assert found.stride == expected_stride
            of_plain = expected_stride if expected_stride <= native else native
            maps = FeatureExtractor(plain, stage=stage, stride=of_plain, dilate=True)
            with torch.inference_mode():
                expected = nn.functional.avg_pool2d(maps(frames), expected_stride // of_plain)
                torch.testing.assert_close(found(frames), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="has stages 1 to 4: stage 5 does not exist"):
        FeatureExtractor(fine, stage=5)


def test_stages_of_one_stride_may_be_of_one_width() -> None:
    settings = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "output_stride": 8}
    fine = timm.create_model("convnextv2_atto", num_classes=0, **settings)
    assert [module for module, _ in stages_of(fine)] == ["stages.0", "stages.1", "stages.2", "stages.3"]
    official.add_stage_norms(fine)
    assert stages_of(fine) == [("stage_norms.0", 4), *((f"stage_norms.{stage}", 8) for stage in (1, 2, 3))]


def test_a_stem_and_equal_blocks_are_no_stages_of_their_own() -> None:
    with torch.device("meta"):
        assert [stride for _, stride in stages_of(timm.create_model("resnet50_patchify"))] == [4, 8, 16, 32]
        assert stages_of(timm.create_model("convmixer_768_32")) == [("blocks.31", 7)]


@pytest.mark.parametrize("name", CONVNETS)
def test_grids_are_rounded_up_at_every_stride(name: str) -> None:
    model = network(name)
    cases: list[tuple[int, Stride]] = [(2, 4), (2, 8), (2, 16), (4, 8), (4, 16), (-1, "native")]
    for stage, stride in cases:
        extractor = FeatureExtractor(model, stage=stage, stride=stride)
        native = 8 if stage == 2 else 32
        assert extractor.stride == (native if stride == "native" else stride)
        with torch.inference_mode():
            features = extractor(torch.rand(1, 3, 75, 101))
        rows, columns = math.ceil(75 / extractor.stride), math.ceil(101 / extractor.stride)
        assert features.shape == (1, extractor.channels, rows, columns)
        assert extractor.grid(75, 101) == (rows, columns)


def test_the_last_stage_is_what_timm_computes() -> None:
    model = network("convnextv2_atto")
    frames = torch.rand(1, 3, 64, 96)
    extractor = FeatureExtractor(model)
    with torch.inference_mode():
        assert torch.equal(extractor(frames), model.forward_features((frames - extractor.mean) / extractor.std))


def test_a_vit_takes_frames_of_any_size() -> None:
    model = network("vit_tiny_patch16_224")
    extractor = FeatureExtractor(model, stage=3, stride=8)  # a preset's stride: patches of 16 stay what they are
    assert extractor.stride == 16 and extractor.channels == 192
    frames = torch.rand(1, 3, 100, 230)
    with torch.inference_mode():
        assert extractor(frames).shape == (1, 192, 7, 15)
        square = torch.rand(1, 3, 224, 224)
        tokens = model.forward_features((square - extractor.mean) / extractor.std)[:, 1:]
        expected = tokens.transpose(1, 2).unflatten(2, (14, 14))
        torch.testing.assert_close(extractor(square), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="features of stride 16 only, not 8"):
        FeatureExtractor(model, stride=8, required=True)


def test_raw_pixels_lose_nothing() -> None:
    extractor = FeatureExtractor("raw-pixels", stride=4)
    frames = torch.rand(1, 3, 8, 12)
    features = extractor(frames)
    assert features.shape == (1, 48, 2, 3)
    cell = (frames - extractor.mean)[0, :, 4:8, 8:12] / extractor.std
    assert torch.equal(features[0, :, 1, 2], cell.flatten())


def test_any_module_or_function_is_taken_as_it_is() -> None:
    def means(frames: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(frames, 5)

    extractor = FeatureExtractor(means)
    assert (extractor.stride, extractor.channels) == (5, 3)
    assert extractor(torch.rand(1, 3, 11, 10)).shape == (1, 3, 3, 2)
    with pytest.raises(UserError, match=r"must map frames .* but makes \(1, 7\)"):
        FeatureExtractor(lambda frames: torch.zeros(1, 7))


def test_pixels_are_normalised_as_asked() -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    assert FeatureExtractor(model).description["mean"] == [0.5, 0.5, 0.5]
    assert FeatureExtractor(model, normalization="imagenet").description["std"] == [0.229, 0.224, 0.225]
    assert FeatureExtractor(model, normalization="dino").description["std"] == [0.228, 0.224, 0.225]


def test_what_cannot_be_had_is_refused() -> None:
    model = network("resnet18")
    with pytest.raises(UserError, match="has stages 1 to 4: stage 5 does not exist"):
        FeatureExtractor(model, stage=5)
    with pytest.raises(UserError, match="a stride of 12 is no multiple"):
        FeatureExtractor(model, stage=2, stride=12)
    isotropic = network("convnextv2_small_isotropic")
    assert FeatureExtractor(isotropic, stage=3, stride=8).stride == 16
    with pytest.raises(UserError, match="cannot be brought to stride 8"):
        FeatureExtractor(isotropic, stage=1, stride=8, required=True)
