from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.models.autoencoder import TargetNetwork
from videomac.models.backbones import create_backbone
from videomac.models.losses import normalize_patches, patchify
from videomac.models.videomac import VideoMAC, VideoMACOutput, feature_std
from videomac.train.config import PretrainConfig
from videomac.train.pretrain import build_model

SIZE = (96, 128)  # 3 x 4 patches of 32, 3 of them visible
MODES = ["blocks", "masked"]


def small_convnext(**settings: object) -> nn.Module:
    return create_backbone("convnextv2_tiny", depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), **settings)


def small_resnet(**settings: object) -> nn.Module:
    return create_backbone("resnet18", layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), **settings)


def example(backbone: nn.Module | None = None, batch: int = 2, **settings: object) -> tuple[VideoMAC, Tensor]:
    torch.manual_seed(0)
    model = VideoMAC(backbone or small_convnext(), decoder_width=8, **settings).double()  # type: ignore[arg-type]
    for parameter in model.online.parameters():  # leave the initial state, in which GRN is the identity
        parameter.data += 0.05 * torch.randn_like(parameter)
    for parameter in model.target.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model, torch.randn(batch, 2, 3, *SIZE, dtype=torch.float64)


def literal_mean_square(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Eq. 1 and 2 as sums over samples and hidden patches."""
    a, b = a.detach(), b.detach()
    terms = [
        float(((a[sample, patch] - b[sample, patch]) ** 2).mean())
        for sample in range(len(mask))
        for patch in range(mask[sample].numel())
        if mask[sample].flatten()[patch]
    ]
    return sum(terms) / len(terms)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_losses_are_equations_1_to_3(symmetric: bool, mode: str) -> None:
    model, pair = example(symmetric=symmetric, gamma=0.5, mode=mode)
    out = model(pair, model.sample_mask(2, SIZE, torch.Generator().manual_seed(1)))
    mask_a, mask_b = (out.mask, out.mask) if symmetric else out.mask.unbind(1)
    goal_a, goal_b = (normalize_patches(patchify(frame, 32)) for frame in pair.unbind(1))
    online = literal_mean_square(out.online_prediction, goal_a, mask_a)
    target = literal_mean_square(out.target_prediction, goal_b, mask_b)
    consistency = literal_mean_square(out.online_prediction, out.target_prediction, mask_a & mask_b)
    assert out.online_loss.item() == pytest.approx(online, rel=1e-12)
    assert out.target_loss.item() == pytest.approx(target, rel=1e-12)
    assert out.consistency_loss.item() == pytest.approx(consistency, rel=1e-12)
    assert out.loss.item() == pytest.approx(online + target + 0.5 * consistency, rel=1e-12)
    assert out.online_prediction.shape == out.target_prediction.shape == (2, 12, 32 * 32 * 3)
    torch.testing.assert_close(out.online_prediction, model.online(pair[:, 0], mask_a))
    torch.testing.assert_close(out.target_prediction, model.target(pair[:, 1], mask_b))


def test_pixels_as_they_are() -> None:
    model, pair = example(norm_pix_loss=False)
    out = model(pair)
    expected = literal_mean_square(out.online_prediction, patchify(pair[:, 0], 32), out.mask)
    assert out.online_loss.item() == pytest.approx(expected, rel=1e-12)


def test_masks_symmetric_and_asymmetric() -> None:
    symmetric, pair = example()
    assert symmetric(pair).mask.shape == (2, 3, 4)
    asymmetric, _ = example(symmetric=False)
    mask = asymmetric.sample_mask(64, SIZE, torch.Generator().manual_seed(0))
    assert mask.shape == (64, 2, 3, 4)
    assert (~mask).flatten(2).sum(2).unique().tolist() == [3]
    assert not torch.equal(mask[:, 0], mask[:, 1])
    assert asymmetric(pair, mask[:2]).mask.shape == (2, 2, 3, 4)
    assert torch.equal(mask, asymmetric.sample_mask(64, SIZE, torch.Generator().manual_seed(0)))


def test_nothing_hidden_in_both_frames_is_not_nan() -> None:
    model, pair = example(symmetric=False, mask_ratio=0.5)
    mask_a = torch.tensor([[True, False, True, False]] * 3).expand(2, 3, 4)
    out = model(pair, torch.stack([mask_a, ~mask_a], dim=1))
    out.loss.backward()
    assert out.consistency_loss.item() == 0
    assert out.loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("network", [small_convnext, small_resnet])
def test_nan_in_hidden_pixels_changes_nothing(network: object, mode: str) -> None:
    model, pair = example(network(), batch=4, mode=mode)  # type: ignore[operator]
    mask = model.sample_mask(4, SIZE, torch.Generator().manual_seed(0))
    hidden = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None, None].expand_as(pair)
    results = []
    for filler in (0.0, float("nan")):
        trial = copy.deepcopy(model)
        out = trial(torch.where(hidden, filler, pair), mask)
        (out.online_prediction * torch.arange(12)[:, None]).sum().backward()
        results.append((out, gradients(trial), dict(trial.named_buffers())))
    (clean, clean_gradients, clean_buffers), (poisoned, poisoned_gradients, poisoned_buffers) = results
    assert torch.equal(clean.online_prediction, poisoned.online_prediction)
    assert torch.equal(clean.target_prediction, poisoned.target_prediction)
    assert torch.equal(clean.feature_std, poisoned.feature_std)
    assert clean_gradients.keys() == poisoned_gradients.keys()
    assert all(torch.equal(poisoned_gradients[name], value) for name, value in clean_gradients.items())
    assert all(torch.equal(poisoned_buffers[name], value) for name, value in clean_buffers.items())


def test_every_trainable_parameter_is_trained_and_the_target_is_not() -> None:
    for network in (small_convnext(), small_resnet()):
        model, pair = example(network, batch=4)
        model(pair).loss.backward()
        trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        trainable = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == trainable
        assert all(name.startswith("online.") for name in trainable)
        reached = {name for name in dict(model.online.named_parameters()) if "backbone.head." not in name}
        assert trainable == {f"online.{name}" for name in reached}


def test_the_target_loss_trains_nothing_by_default() -> None:
    model, pair = example(gamma=0.3)
    mask = model.sample_mask(2, SIZE, torch.Generator().manual_seed(0))
    model(pair, mask).loss.backward()
    full = gradients(model)
    model.zero_grad()
    out = model(pair, mask)
    (out.online_loss + 0.3 * out.consistency_loss).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(full[name], gradient, rtol=1e-10, atol=1e-14)


def test_target_gradient_lets_the_online_network_reconstruct_frame_b() -> None:
    plain, pair = example()
    model, _ = example(target_gradient=True)
    mask = model.sample_mask(2, SIZE, torch.Generator().manual_seed(0))
    out, plain_out = model(pair, mask), plain(pair, mask)
    goal_b = normalize_patches(patchify(pair[:, 1], 32))
    expected = literal_mean_square(model.online(pair[:, 1], mask), goal_b, mask)
    assert out.target_loss.item() == pytest.approx(expected, rel=1e-12)
    assert out.target_loss.item() != plain_out.target_loss.item()
    assert torch.equal(out.target_prediction, plain_out.target_prediction), "still the target network's"
    assert torch.equal(out.consistency_loss, plain_out.consistency_loss)
    out.target_loss.backward()
    assert len(gradients(model.online)) > 10
    assert not gradients(model.target)


def after_two_steps(network: Callable[..., nn.Module], **settings: Any) -> dict[str, Tensor]:
    """Every tensor of both networks after two steps of a run in float32, the same but for these settings."""
    torch.manual_seed(0)
    model = VideoMAC(network(drop_path_rate=0.2), decoder_width=8, **settings)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):
        model(torch.randn(4, 2, 3, *SIZE)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.9)
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("network", [small_convnext, small_resnet])
def test_without_consistency_the_second_frame_trains_nothing(network: Callable[..., nn.Module]) -> None:
    """Table 4d's single frames are gamma 0, to the last bit, so that one row of a study is both."""
    gamma_0 = after_two_steps(network, gamma=0.0)
    single = after_two_steps(network, consistency_loss=False, target_loss=False)
    assert all(torch.equal(single[name], value) for name, value in gamma_0.items())
    encoder = [name for name in gamma_0 if name.startswith("online.encoder.") and "head." not in name]
    for other in (
        after_two_steps(network, gamma=1.0),
        after_two_steps(network, gamma=0.0, target_gradient=True),
    ):
        changed = {name for name in encoder if not torch.equal(other[name], gamma_0[name])}
        assert {name for name in encoder if name.endswith("weight")} <= changed


@pytest.mark.parametrize("switched_on", [(1, 0, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_losses_are_switched_off_one_by_one(switched_on: tuple[int, int, int]) -> None:
    online, target, consistency = switched_on
    model, pair = example(
        online_loss=bool(online), target_loss=bool(target), consistency_loss=bool(consistency), gamma=0.7
    )
    out = model(pair)
    expected = online * out.online_loss + target * out.target_loss + 0.7 * consistency * out.consistency_loss
    torch.testing.assert_close(out.loss, expected)
    assert min(out.online_loss, out.target_loss, out.consistency_loss) > 0, "measured all the same"


def test_a_loss_that_trains_nothing_is_refused() -> None:
    """The same for the model as for the options of a run, which are checked before anything heavy is imported."""
    off = {"online_loss": False, "consistency_loss": False}
    with pytest.raises(ValueError, match="nothing would train the online network"):
        VideoMAC(small_convnext(), **off)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing would train the online network"):
        VideoMAC(small_convnext(), online_loss=False, gamma=0.0)
    VideoMAC(small_convnext(), **off, target_gradient=True)  # type: ignore[arg-type]
    run = {"data": Path("clips"), "backbone": "resnet18", "out": Path("run")}
    for options in (off, {"online_loss": False, "gamma": 0.0}):
        with pytest.raises(UserError, match="nothing would train the online network"):
            PretrainConfig(**run, **options)  # type: ignore[arg-type]
    PretrainConfig(**run, **off, target_gradient=True)  # type: ignore[arg-type]


def test_update_target_averages_parameters_and_copies_buffers() -> None:
    model, pair = example(small_resnet(), batch=4)
    model(pair)
    before = {name: p.detach().clone() for name, p in model.target.named_parameters()}
    model.update_target(0.9)
    for name, p in model.online.named_parameters():
        expected = 0.9 * before[name] + 0.1 * p
        torch.testing.assert_close(dict(model.target.named_parameters())[name], expected)
    buffers = dict(model.target.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.online.named_buffers())
    assert any(buffer.any() for name, buffer in buffers.items() if "running_mean" in name)


@pytest.mark.parametrize("mode", MODES)
def test_target_uses_batch_statistics_without_touching_its_buffers(mode: str) -> None:
    model, pair = example(small_resnet(), batch=4, mode=mode)
    mask = model.sample_mask(4, SIZE, torch.Generator().manual_seed(0))
    model.update_target(0.0)  # same weights: it must equal the online network in training
    reference = copy.deepcopy(model.online)
    buffers = {name: buffer.clone() for name, buffer in model.target.named_buffers()}
    for state in (model.train(), model.eval().train(), model):
        out = state(pair, mask)
        torch.testing.assert_close(out.target_prediction, reference.train()(pair[:, 1], mask))
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.target.named_buffers())
    model.update_target(0.0)
    model.eval()
    expected = copy.deepcopy(model.online).eval()(pair[:, 1], mask)
    torch.testing.assert_close(model(pair, mask).target_prediction, expected)
    assert not torch.allclose(expected, reference.train()(pair[:, 1], mask))


def test_nothing_is_random_in_the_target() -> None:
    model, pair = example(small_convnext(drop_path_rate=0.9), batch=4)
    model.update_target(0.0)
    model.train()
    mask = model.sample_mask(4, SIZE, torch.Generator().manual_seed(0))
    first, second = model(pair, mask), model(pair, mask)
    assert torch.equal(first.target_prediction, second.target_prediction)
    assert not torch.equal(first.online_prediction, second.online_prediction)
    expected = model.eval().online(pair[:, 1], mask)
    torch.testing.assert_close(first.target_prediction, expected)


def test_patches_larger_than_the_stride() -> None:
    model, _ = example(patch_size=64, mask_ratio=0.5)
    pair = torch.randn(2, 2, 3, 128, 192, dtype=torch.float64)
    out = model(pair)
    assert out.mask.shape == (2, 2, 3)
    assert out.online_prediction.shape == (2, 6, 64 * 64 * 3)
    goal = normalize_patches(patchify(pair[:, 0], 64))
    assert out.online_loss.item() == pytest.approx(literal_mean_square(out.online_prediction, goal, out.mask))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("stride", "patch"), [(16, 32), (8, 16)])
def test_a_finer_map_of_the_patches_is_put_together_to_their_pixels(stride: int, patch: int, mode: str) -> None:
    torch.manual_seed(0)
    given = {} if patch == 32 else {"patch_size": patch}  # 32 whatever the stride
    settings = {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]}
    model = VideoMAC(
        "convnextv2_tiny", mode=mode, decoder_width=8, backbone_args=settings, output_stride=stride, **given
    ).double()
    assert (model.patch_size, model.online.encoder.stride, model.online.encoder.mode) == (patch, stride, mode)
    pair = torch.randn(2, 2, 3, 3 * patch, 4 * patch, dtype=torch.float64)
    out = model(pair)
    assert out.mask.shape == (2, 3, 4)
    # Literally: the head's values of a cell, row by row, are the pixels under it, and patches are cut from all pixels.
    decoder, features = model.online.decoder, model.online.encoder(pair[:, 0], out.mask)
    hidden = out.mask.repeat_interleave(patch // stride, 1).repeat_interleave(patch // stride, 2)[:, None]
    cells = decoder.head(decoder.blocks(torch.where(hidden, decoder.mask_token, decoder.projection(features))))
    pixels = cells.new_zeros(2, 3, 3 * patch, 4 * patch)
    for y in range(cells.shape[2]):
        for x in range(cells.shape[3]):
            cell = cells[:, :, y, x].view(2, stride, stride, 3).permute(0, 3, 1, 2)
            pixels[:, :, y * stride : (y + 1) * stride, x * stride : (x + 1) * stride] = cell
    torch.testing.assert_close(out.online_prediction, patchify(pixels, patch))
    goal = normalize_patches(patchify(pair[:, 0], patch))
    assert out.online_loss.item() == pytest.approx(literal_mean_square(out.online_prediction, goal, out.mask))
    out.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.online.parameters() if p.requires_grad)


def test_a_network_is_not_of_another_stride_than_asked_for() -> None:
    with pytest.raises(UserError, match="ConvNeXt has a stride of 32, not the output_stride 16 that is asked for"):
        VideoMAC(small_convnext(), output_stride=16)
    with pytest.raises(UserError, match="IsotropicConvNeXt has a stride of 16, not the output_stride 8"):
        VideoMAC("convnextv2_small_isotropic", backbone_args={"depth": 1, "dim": 8}, output_stride=8)
    with pytest.raises(ValueError, match="patch_size 24 must be a multiple of the network's stride 16"):
        VideoMAC("test_convnext", patch_size=24, output_stride=16)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", MODES)
def test_masks_on_the_cpu_serve_frames_on_the_gpu(mode: str) -> None:
    model, pair = example(mode=mode)
    mask = model.sample_mask(2, SIZE)
    expected = model(pair, mask)
    found = model.cuda()(pair.cuda(), mask)
    assert found.mask.is_cuda
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "mask", "message"),
    [
        ((2, 3, 3, 96, 128), None, r"pair must be \[batch, 2, 3, height, width\]"),
        ((2, 2, 3, 96, 120), None, "96x120 pixels do not divide into patches of 32"),
        ((2, 2, 3, 96, 128), torch.zeros(2, 3, 4, dtype=torch.bool), "hides nothing"),
        ((2, 2, 3, 96, 128), torch.ones(2, 4, 3, dtype=torch.bool), "4x3 patches of 32 pixels does not fit .* 96x128"),
        ((2, 2, 3, 96, 128), torch.ones(2, 6, 8, dtype=torch.bool), "6x8 patches of 32 pixels does not fit"),
        ((2, 2, 3, 96, 128), torch.ones(3, 3, 4, dtype=torch.bool), "3 masks for 2 pairs"),
        ((2, 2, 3, 96, 128), torch.ones(2, 3, 4), "mask must be boolean"),
        ((2, 2, 3, 96, 128), torch.ones(2, 3, 3, 4, dtype=torch.bool), "mask must be boolean"),
    ],
)
def test_wrong_input_is_refused(shape: tuple[int, ...], mask: Tensor | None, message: str) -> None:
    model = VideoMAC(small_convnext(), decoder_width=8)
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(shape), mask)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_ratio": 0.0}, "above 0 and below 1"),
        ({"mask_ratio": 1.0}, "above 0 and below 1"),
        ({"patch_size": 48}, "multiple of the network's stride 32"),
        ({"preset": "papers"}, "preset must be"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoMAC(small_convnext(), **settings)  # type: ignore[arg-type]


def test_feature_std_is_over_samples_and_visible_cells() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 5, 4, 6)
    mask = torch.rand(3, 2, 3) < 0.5
    deviations = []
    for channel in range(5):
        values = [
            features[sample, channel, y, x].item()
            for sample in range(3)
            for y in range(4)
            for x in range(6)
            if not mask[sample, y // 2, x // 2]
        ]
        deviations.append(torch.tensor(values).std().item())
    assert feature_std(features, mask).item() == pytest.approx(sum(deviations) / 5, rel=1e-5)
    collapsed = torch.arange(5.0)[None, :, None, None].expand(3, 5, 4, 6)
    assert feature_std(collapsed, mask).item() == 0
    one_cell = torch.ones(1, 1, 1, dtype=torch.bool).logical_not()
    assert feature_std(torch.randn(1, 5, 1, 1), one_cell).item() == 0


def test_copies_pickles_and_state_dicts_give_the_same_numbers() -> None:
    model, pair = example(small_resnet(), batch=4)
    mask = model.sample_mask(4, SIZE, torch.Generator().manual_seed(0))
    other, _ = example(small_resnet(), batch=4)
    other.load_state_dict(model.state_dict())
    expected: VideoMACOutput = copy.deepcopy(model)(pair, mask)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), other):
        assert torch.equal(twin(pair, mask).loss, expected.loss)
        assert isinstance(twin.target, TargetNetwork)
        assert twin.target.encoder is not twin.online.encoder


def test_arguments_build_the_same_model_again() -> None:
    settings = {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]}
    model = VideoMAC("convnextv2_tiny", backbone_args=settings, decoder_width=8, gamma=0.5, symmetric=False)
    again = VideoMAC(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert again.arguments == model.arguments
    assert (again.loss_weights, again.symmetric) == ((1.0, 1.0, 0.5), False)


def test_options_of_a_run_reach_the_model_by_name() -> None:
    """Every option of the method is one of a run, with the same default, and what a run says the model does."""
    run = {"data": Path("clips"), "backbone": "test_convnext", "out": Path("run")}
    options, method = vars(PretrainConfig(**run)), inspect.signature(VideoMAC).parameters  # type: ignore[arg-type]
    apart = {"backbone", "backbone_args"}
    assert {name: options[name] for name in method.keys() - apart} == {
        name: parameter.default for name, parameter in method.items() if name not in apart
    }
    changed = {
        **{"mask_ratio": 0.5, "patch_size": 64, "symmetric": False, "decoder_width": 16, "decoder_depth": 2},
        **{"gamma": 0.3, "norm_pix_loss": False, "mode": "masked", "preset": "official", "online_loss": False},
        **{"target_loss": False, "consistency_loss": True, "target_gradient": True, "drop_path": 0.2},
        **{"output_stride": 16},
    }
    config = PretrainConfig(**run, **changed)  # type: ignore[arg-type]
    expected = {name: value for name, value in changed.items() if name != "drop_path"}
    arguments = build_model(config).arguments
    assert arguments == {
        **{**expected, "backbone": "test_convnext"},
        "backbone_args": {"drop_path_rate": 0.2, "output_stride": 16},
    }


def test_autocast_keeps_the_losses_in_float32() -> None:
    model, pair = example()
    model.float()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(pair.float())
    out.loss.backward()
    assert out.loss.dtype == out.online_loss.dtype == out.consistency_loss.dtype == torch.float32
    assert out.feature_std.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
