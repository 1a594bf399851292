"""Blocks = masked dense = the meaning; nothing hidden is ever read; without a mask nothing has changed.

This is the test that everything else stands on. The meaning is written out in `literal.py`, on plain timm networks.
Errors are relative: outputs max|difference| / max|reference|, gradients |difference| / |reference| as L2 norms over
all parameters.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import videomac.models.backbones  # noqa: F401  (our own networks, by name)
from tests.sparse.literal import literal_features
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask

STRIDE = 32

SMALL: dict[str, dict[str, Any]] = {
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "convnextv2_atto": {"depths": (1, 1, 2, 1)},
    "convnextv2_tiny": {"depths": (1, 1, 2, 1), "dims": (16, 32, 64, 128)},  # channels last in its MLPs and GRN
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "ecaresnet50t": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "test_efficientnet": {},
    "mobilenetv2_050": {},
    "mobilenetv3_small_050": {},
    "regnetx_002": {},
    "regnety_002": {},
    "repvgg_a0": {},
    "resnet18": {"layers": (1, 1, 1, 1)},
    "resnet18 group norm": {"layers": (1, 1, 1, 1), "norm_layer": "groupnorm"},
    "resnet18_patchify": {"layers": (1, 1, 1, 1), "channels": (64, 32, 64, 128)},
    "resnet50": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "resnet50d": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "resnext50_32x4d": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "seresnet50": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
    "tf_mobilenetv3_small_minimal_100": {},
    "wide_resnet50_2": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
}
"""Networks of the families that blocks mode promises, most with fewer layers or channels (Lite is in FULL alone)."""

FULL = [
    "convnext_atto",
    "convnext_tiny",
    "convnextv2_atto",
    "convnextv2_tiny",
    "densenet121",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "regnetx_008",
    "regnety_008",
    "repvgg_a0",
    "resnet18",
    "resnet50",
    "resnet50_patchify",
    "resnet50d",
    "resnext50_32x4d",
    "tf_efficientnet_lite0",
    "wide_resnet50_2",
]
SIZES = [(224, 224), (160, 224), (96, 320)]
VISIBLE = ["one", "quarter", "all"]


def pairwise() -> list[Any]:
    """Every network in one combination of size and visible share; all nine combinations come up at least twice."""
    combinations = itertools.cycle(itertools.product(SIZES, VISIBLE))
    return [pytest.param(name, *next(combinations), id=name) for name in SMALL]


def build(name: str, **settings: Any) -> nn.Module:
    """A network in which no parameter hides a branch: zero-initialised and constant ones get random values.

    BatchNorm's running statistics are those of some batch, so that evaluation mode is as well-behaved as after
    training.
    """
    torch.manual_seed(0)
    network = timm.create_model(name.split()[0], num_classes=0, **settings).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if (parameter == parameter.flatten()[0]).all():
                parameter.uniform_(0.5, 1.5)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        network.train().forward_features(torch.randn(4, 3, 64, 96, dtype=torch.float64))
        for norm in norms:
            norm.momentum = 0.1
    return network


def make_batch(
    size: tuple[int, int], visible: str, normalises_over_batch: bool, patch: int = STRIDE
) -> tuple[Tensor, Tensor]:
    """Frames and a mask, different in every sample."""
    generator = torch.Generator().manual_seed(1)
    batch = 8 if visible == "one" and normalises_over_batch else 4
    grid = (size[0] // patch, size[1] // patch)
    ratio = {"one": 1 - 1 / (grid[0] * grid[1]), "quarter": 0.75, "all": 0.0}[visible]
    mask = random_mask(batch, grid, ratio, generator=generator)
    frames = torch.randn(batch, 3, *size, generator=generator, dtype=torch.float64)
    return frames, mask


def uses_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def output_and_gradient(features: Tensor, network: nn.Module) -> tuple[Tensor, Tensor]:
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    network.zero_grad()
    (features * weights.to(features.dtype)).sum().backward()
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return features.detach(), torch.cat(gradients)


def output_error(result: Tensor, reference: Tensor) -> float:
    result, reference = result.detach().double(), reference.detach().double()
    return float((result - reference).abs().max() / reference.abs().max())


def gradient_error(result: Tensor, reference: Tensor) -> float:
    return float((result.double() - reference.double()).norm() / reference.double().norm())


def check_against_the_meaning(
    network: nn.Module, size: tuple[int, int], visible: str, training: bool, patch: int = STRIDE
) -> None:
    """Both modes equal the literal reference: outputs, gradients and BatchNorm's running statistics, in float64."""
    frames, mask = make_batch(size, visible, uses_batch_norm(network), patch)
    plain = copy.deepcopy(network).train(training)
    reference, reference_gradient = output_and_gradient(literal_features(plain, frames, mask), plain)
    for mode in ("blocks", "masked"):
        encoder = SparseEncoder(copy.deepcopy(network), mode=mode).train(training)
        result, gradient = output_and_gradient(encoder(frames, mask), encoder)
        assert result.shape == reference.shape
        assert output_error(result, reference) < 1e-10, mode
        assert gradient_error(gradient, reference_gradient) < 1e-10, mode
        for (key, buffer), expected in zip(encoder.backbone.named_buffers(), plain.buffers(), strict=True):
            assert torch.allclose(buffer, expected, rtol=1e-10, atol=1e-12), (mode, key)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "size", "visible"), pairwise())
def test_both_modes_equal_the_meaning(name: str, size: tuple[int, int], visible: str, training: bool) -> None:
    check_against_the_meaning(build(name, **SMALL[name]), size, visible, training)


FINER = [
    ("convnextv2_atto", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, 16, 16),
    ("convnextv2_atto", {"depths": (1, 1, 1, 2), "dims": (8, 16, 24, 32)}, 8, 32),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, 8, 8),
    ("resnet18", {"layers": (1, 1, 1, 2), "channels": (8, 16, 24, 32)}, 16, 32),
    ("resnet18", {"layers": (1, 1, 2, 1), "channels": (8, 16, 24, 32)}, 8, 16),
    ("resnet50", {"layers": (1, 1, 2, 2), "channels": (4, 8, 12, 16)}, 8, 32),
    ("resnet50d", {"layers": (1, 1, 1, 1), "channels": (4, 8, 12, 16)}, 16, 16),
    ("resnet18_patchify", {"layers": (1, 1, 1, 1), "channels": (64, 8, 16, 24)}, 8, 16),
]
"""Networks whose later strides are dilation: name, settings, output stride, pixels of a patch."""


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("name", "settings", "stride", "patch"), FINER)
def test_both_modes_equal_the_meaning_at_a_finer_stride(
    name: str, settings: dict[str, Any], stride: int, patch: int, training: bool
) -> None:
    network = build(name, **settings, output_stride=stride)
    assert SparseEncoder(copy.deepcopy(network), mode="blocks", output_stride=stride).stride == stride
    check_against_the_meaning(network, (3 * patch, 4 * patch), "quarter", training, patch)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("patch", [32, 64])
@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_tiny", "resnet18", "resnet50", "resnet50d"])
def test_both_modes_equal_the_meaning_at_a_finer_stride_full_cross(
    name: str, stride: int, patch: int, training: bool
) -> None:
    check_against_the_meaning(build(name, output_stride=stride), (128, 192), "quarter", training, patch)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("visible", VISIBLE)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FULL)
def test_both_modes_equal_the_meaning_full_cross(
    name: str, size: tuple[int, int], visible: str, training: bool
) -> None:
    check_against_the_meaning(build(name), size, visible, training)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_float32_in_eval_mode(name: str) -> None:
    network = with_smooth_activations(build(name, **SMALL[name])).eval()
    frames, mask = make_batch((96, 160), "quarter", False)
    reference, reference_gradient = output_and_gradient(literal_features(network, frames, mask), network)
    for mode in ("blocks", "masked"):
        encoder = SparseEncoder(copy.deepcopy(network).float(), mode=mode).eval()
        result, gradient = output_and_gradient(encoder(frames.float(), mask), encoder)
        assert output_error(result, reference) < 1e-5, mode
        assert gradient_error(gradient, reference_gradient) < 1e-4, mode


def with_smooth_activations(network: nn.Module) -> nn.Module:
    """Where rounding moves a ReLU across its kink the gradient jumps, in the plain network too: not the engine's."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU | nn.ReLU6 | nn.Hardswish | nn.Hardsigmoid):
                setattr(module, name, nn.SiLU())
    return network


@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "mobilenetv3_small_050"])
def test_float32_with_batch_statistics_is_as_exact_as_the_plain_network(name: str) -> None:
    """BatchNorm in float32 amplifies rounding; blocks mode may not amplify it more than four times as much."""
    network = with_smooth_activations(build(name, **SMALL[name])).train()
    frames, mask = make_batch((96, 160), "quarter", True)
    exact, exact_gradient = output_and_gradient(literal_features(network, frames, mask), network)
    plain = copy.deepcopy(network).float()
    own, own_gradient = output_and_gradient(literal_features(plain, frames.float(), mask), plain)
    encoder = SparseEncoder(copy.deepcopy(network).float(), mode="blocks")
    result, gradient = output_and_gradient(encoder(frames.float(), mask), encoder)
    assert output_error(result, exact) < 4 * max(output_error(own, exact), 1e-6)
    assert gradient_error(gradient, exact_gradient) < 4 * max(gradient_error(own_gradient, exact_gradient), 1e-6)


@pytest.mark.parametrize("mode", ["blocks", "masked"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    "name", ["convnextv2_atto", "resnet50", "regnety_002", "tf_mobilenetv3_small_minimal_100", "densenet121"]
)
def test_nothing_hidden_is_ever_read(name: str, training: bool, mode: Any) -> None:
    """NaN in every hidden pixel changes no output and no gradient, to the bit."""
    frames, mask = make_batch((96, 160), "quarter", True)
    hidden = mask.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2)[:, None]
    results = []
    for poison in (0.0, float("nan"), float("inf")):
        encoder = SparseEncoder(build(name, **SMALL[name]), mode=mode).train(training)
        results.append(output_and_gradient(encoder(torch.where(hidden, poison, frames), mask), encoder))
    for output, gradient in results[1:]:
        assert torch.equal(output, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("mode", ["blocks", "masked"])
@pytest.mark.parametrize(("name", "settings", "stride", "patch"), [FINER[1], FINER[4], FINER[6]])
def test_nothing_hidden_is_ever_read_at_a_finer_stride(
    name: str, settings: dict[str, Any], stride: int, patch: int, mode: Any
) -> None:
    frames, mask = make_batch((3 * patch, 4 * patch), "quarter", True, patch)
    hidden = mask.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
    results = []
    for poison in (0.0, float("nan")):
        encoder = SparseEncoder(build(name, **settings, output_stride=stride), mode=mode)
        results.append(output_and_gradient(encoder(torch.where(hidden, poison, frames), mask), encoder))
    assert all(torch.equal(poisoned, clean) for poisoned, clean in zip(results[1], results[0], strict=True))


@pytest.mark.parametrize(("name", "settings", "stride", "patch"), [FINER[0], FINER[5]])
def test_all_visible_is_the_plain_network_at_a_finer_stride(
    name: str, settings: dict[str, Any], stride: int, patch: int
) -> None:
    network = build(name, **settings, output_stride=stride).eval()
    frames, mask = make_batch((2 * patch, 3 * patch), "all", True, patch)
    expected = network.forward_features(frames)
    for mode in ("blocks", "masked"):
        assert output_error(SparseEncoder(copy.deepcopy(network), mode=mode)(frames, mask), expected) < 1e-10, mode


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", sorted(SMALL))
def test_all_visible_is_the_plain_network(name: str, training: bool) -> None:
    network = build(name, **SMALL[name]).train(training)
    frames, mask = make_batch((96, 128), "all", True)
    encoders = [SparseEncoder(copy.deepcopy(network), mode=mode) for mode in ("blocks", "masked")]
    reference, reference_gradient = output_and_gradient(network.forward_features(frames), network)
    for encoder in encoders:
        result, gradient = output_and_gradient(encoder(frames, mask), encoder)
        assert output_error(result, reference) < 1e-10, encoder.mode
        assert gradient_error(gradient, reference_gradient) < 1e-10, encoder.mode


@pytest.mark.parametrize("mode", ["blocks", "masked"])
def test_output_is_exactly_zero_where_hidden(mode: Any) -> None:
    frames, mask = make_batch((160, 224), "quarter", True)
    features = SparseEncoder(build("resnet18"), mode=mode)(frames, mask)
    shown = (features != 0).any(dim=1)
    assert torch.equal(shown, ~mask)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_keys_and_plain_forward_are_untouched(name: str) -> None:
    network = build(name, **SMALL[name]).eval()
    frames = make_batch((96, 160), "all", True)[0]
    keys, expected = list(network.state_dict()), network.forward_features(frames)
    encoder = SparseEncoder(network)
    assert encoder.mode == "blocks"
    assert encoder.backbone is network
    assert list(network.state_dict()) == keys
    assert torch.equal(encoder(frames), expected)
    assert torch.equal(network.forward_features(frames), expected)
    assert encoder(frames).shape[1] == encoder.num_features


@pytest.mark.parametrize(("patch", "grid"), [(64, (2, 3)), (96, (1, 2))])
@pytest.mark.parametrize("name", ["convnextv2_atto", "resnet18"])
def test_patches_larger_than_the_stride(name: str, patch: int, grid: tuple[int, int]) -> None:
    network = build(name, **SMALL[name])
    mask = torch.ones(4, *grid, dtype=torch.bool)
    mask[:, 0, 0] = False
    mask[1::2] = mask[1::2].flip(2)  # another place in every other sample
    frames = torch.randn(4, 3, grid[0] * patch, grid[1] * patch, dtype=torch.float64)
    reference = literal_features(copy.deepcopy(network), frames, mask)
    for mode in ("blocks", "masked"):
        assert output_error(SparseEncoder(copy.deepcopy(network), mode=mode)(frames, mask), reference) < 1e-10


def test_masked_mode_takes_masks_of_different_ratios() -> None:
    network = build("regnety_002")
    frames, _ = make_batch((96, 160), "all", False)
    mask = torch.ones(4, 3, 5, dtype=torch.bool)
    for sample, visible in enumerate((1, 3, 7, 15)):
        mask[sample].view(-1)[:visible] = False
    encoder = SparseEncoder(copy.deepcopy(network), mode="masked")
    assert output_error(encoder(frames, mask), literal_features(network, frames, mask)) < 1e-10
    with pytest.raises(ValueError, match="same number"):
        SparseEncoder(network, mode="blocks")(frames, mask)


def test_drop_path_decides_once_per_sample_and_alike_in_both_modes() -> None:
    network = build("convnextv2_atto", depths=(1, 1, 1, 1), drop_path_rate=0.5)
    frames, mask = make_batch((96, 160), "quarter", False)
    results = []
    for mode in ("blocks", "masked"):
        encoder = SparseEncoder(copy.deepcopy(network), mode=mode).train()
        torch.manual_seed(3)
        results.append(encoder(frames, mask))
    assert output_error(*results) < 1e-10
    torch.manual_seed(4)
    assert output_error(encoder(frames, mask), results[1]) > 1e-3  # chance is at work


def test_encoders_share_nothing() -> None:
    """A failure in one encoder, a copy of it and another encoder leave each other alone."""
    frames, mask = make_batch((96, 160), "quarter", False)
    encoder = SparseEncoder(build("resnet18")).eval()
    expected = encoder(frames, mask)
    twin = copy.deepcopy(encoder)

    def fail(module: nn.Module, inputs: Any, output: Any) -> None:
        # Half way through, the twin runs with another mask and the first must not notice.
        twin(frames, mask.flip(1))
        raise KeyboardInterrupt

    handle = encoder.backbone.layer2.register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        encoder(frames, mask)
    handle.remove()
    plain = build("resnet18").eval()
    assert torch.equal(encoder(frames), plain.forward_features(frames))
    assert torch.equal(encoder(frames, mask), expected)
    assert torch.equal(twin(frames, mask), expected)


def test_pickle_round_trip(tmp_path: Any) -> None:
    frames, mask = make_batch((96, 160), "quarter", False)
    encoder = SparseEncoder(build("convnextv2_atto", depths=(1, 1, 1, 1))).eval()
    torch.save(encoder, tmp_path / "encoder.pt")
    loaded = torch.load(tmp_path / "encoder.pt", weights_only=False)
    assert torch.equal(loaded(frames, mask), encoder(frames, mask))


@pytest.mark.parametrize(
    ("frames", "mask", "message"),
    [
        ((1, 3, 96, 96), (1, 3, 4), "square patches"),
        ((1, 3, 96, 96), (1, 6, 6), "multiple of the network's stride 32"),
        ((1, 3, 100, 96), (1, 3, 3), "square patches"),
        ((2, 3, 96, 96), (1, 3, 3), "bool \\[batch, rows, columns\\]"),
    ],
)
def test_masks_that_do_not_fit_are_refused(frames: Any, mask: Any, message: str) -> None:
    encoder = SparseEncoder("resnet18")
    with pytest.raises(ValueError, match=message):
        encoder(torch.zeros(frames), torch.zeros(mask, dtype=torch.bool))
    with pytest.raises(ValueError, match="bool"):
        encoder(torch.zeros(1, 3, 96, 96), torch.zeros(1, 3, 3))


@pytest.mark.parametrize("mode", ["blocks", "masked"])
def test_a_sample_without_a_visible_patch_is_refused(mode: Any) -> None:
    encoder = SparseEncoder("resnet18", mode=mode)
    with pytest.raises(ValueError, match="at least 1"):
        encoder(torch.zeros(2, 3, 96, 96), torch.ones(2, 3, 3, dtype=torch.bool))


def test_statistics_over_positions_are_summed_in_float32_under_autocast() -> None:
    """A bfloat16 sum of ones stops at 256; GRN sees thousands of positions."""
    encoder = SparseEncoder(build("convnextv2_atto", depths=(1, 1, 1, 1)).float())
    norm = encoder.backbone.stages[0].blocks[0].mlp.grn
    with torch.no_grad():
        norm.weight.fill_(1.0)
        norm.bias.zero_()
    x = torch.zeros(1, len(norm.weight), 64, 64, dtype=torch.bfloat16)
    x[:, 0] = 1.0
    x[:, 1, :1] = 1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = norm(x)
    expected = norm(x.float())
    assert (result.float() - expected).abs().max() / expected.abs().max() < 0.01


def test_bfloat16_autocast_stays_near_float32() -> None:
    encoder = SparseEncoder(build("convnextv2_atto", depths=(1, 1, 1, 1)).float()).eval()
    frames, mask = make_batch((96, 160), "quarter", False)
    expected = encoder(frames.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = encoder(frames.float(), mask)
    assert torch.equal(
        result[mask[:, None].expand_as(result)], torch.zeros(1).expand(int(mask.sum()) * result.shape[1])
    )
    assert gradient_error(result.detach(), expected.detach()) < 0.05
