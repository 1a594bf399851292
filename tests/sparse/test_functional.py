"""Every way to exchange values between blocks, each forced, against the plain layer on the whole frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm.layers import AvgPool2dSame
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from videomac.models.masking import random_mask
from videomac.sparse import Blocks, LayoutSlot, functional
from videomac.sparse import triton_kernels as kernels
from videomac.sparse.blocks import Halo
from videomac.sparse.canvas import MaskedCanvas
from videomac.sparse.functional import DepthwiseConvolution, GlobalResponseNormalization, Windows, as_rows
from videomac.sparse.mixing import HaloAvgPool2dSame, HaloConv2d, HaloConv2dSame, PatchConv2d

WINDOWS, COLUMNS = 0, 10**6


def layout(batch: int = 3, grid: tuple[int, int] = (3, 4), ratio: float = 0.5) -> Blocks:
    return Blocks(random_mask(batch, grid, ratio, generator=torch.Generator().manual_seed(1)))


def aware(convolution: nn.Conv2d, same: bool = False) -> HaloConv2d:
    convolution.__class__ = HaloConv2dSame if same else HaloConv2d
    assert isinstance(convolution, HaloConv2d)
    convolution.slot = LayoutSlot()
    return convolution


def on_the_frame(layer: HaloConv2d, x: Tensor, blocks: Blocks) -> Tensor:
    """Autograd's own derivative of the plain layer on the whole frame, hidden cells being 0."""
    return blocks.from_canvas(layer.parent_forward(blocks.to_canvas(x)))


def gradients(output: Tensor, layer: nn.Module, x: Tensor) -> list[Tensor]:
    handed = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=output.dtype)
    return [output, *torch.autograd.grad(output, [x, *layer.parameters()], handed)]


@pytest.mark.parametrize("columns_up_to", [WINDOWS, COLUMNS], ids=["windows", "columns"])
@pytest.mark.parametrize(
    ("size", "kernel", "options", "same"),
    [
        (8, 3, {"padding": 1}, False),
        (4, 3, {"padding": 1, "bias": False}, False),
        (2, 3, {"padding": 1}, False),
        (1, 3, {"padding": 1}, False),
        (1, 5, {"padding": 2}, False),
        (8, 3, {"padding": 1, "stride": 2}, False),
        (2, 3, {"padding": 1, "stride": 2}, False),
        (2, 3, {"padding": 2, "dilation": 2}, False),
        (8, 3, {"padding": 4, "dilation": 4}, False),
        (1, 3, {"padding": 4, "dilation": 4}, False),
        (4, 2, {"padding": 1, "dilation": 2}, False),  # ConvNeXt's second down-sampling layer without its stride,
        (4, 2, {}, True),  # and its first one
        (4, (3, 1), {"padding": (1, 0)}, False),
        (4, 4, {"stride": 2}, True),
        (2, 5, {"stride": 2}, True),
    ],
)
def test_convolution_equals_the_whole_frame(
    columns_up_to: int, size: int, kernel: Any, options: dict[str, Any], same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HaloConv2d, "columns_up_to", columns_up_to)
    torch.manual_seed(0)
    blocks = layout()
    layer = aware(nn.Conv2d(5, 7, kernel, **options).double(), same)
    x = torch.randn(len(blocks), 5, size, size, dtype=torch.float64, requires_grad=True)
    got = gradients(layer.on_blocks(x, blocks), layer, x)
    for ours, plain in zip(got, gradients(on_the_frame(layer, x, blocks), layer, x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("canvas_above", [0.0, 1e9], ids=["canvas", "windows"])
@pytest.mark.parametrize(
    ("size", "kernel", "dilation"),
    [(8, 7, 1), (4, 7, 1), (2, 7, 1), (1, 7, 1), (2, 3, 1), (3, 5, 1), (4, 7, 2), (2, 7, 2), (1, 7, 2), (4, 3, 4)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_equals_the_whole_frame(
    canvas_above: float, size: int, kernel: int, dilation: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HaloConv2d, "canvas_above", canvas_above)
    torch.manual_seed(0)
    blocks = layout(batch=5)  # 30 blocks: more than the weight's gradient takes at once
    padding = dilation * (kernel // 2)
    layer = aware(nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=bias).double())
    monkeypatch.setattr(Blocks, "windows", None)  # a depthwise layer needs no copy that autograd keeps
    x = torch.randn(len(blocks), 6, size, size, dtype=torch.float64, requires_grad=True)
    got = gradients(layer.on_blocks(x, blocks), layer, x)
    for ours, plain in zip(got, gradients(on_the_frame(layer, x, blocks), layer, x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        (4, 1, {}),
        (1, 1, {"bias": False}),
        (4, 1, {"stride": 2}),
        (8, 4, {"stride": 4}),
        (4, 2, {"stride": 2, "bias": False}),
        (4, (1, 2), {"stride": (2, 2)}),
        (4, 1, {"stride": 2, "groups": 5}),
    ],
)
def test_a_kernel_inside_its_stride_equals_the_whole_frame(size: int, kernel: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    blocks = layout()
    layer = nn.Conv2d(5, 10, kernel, **options).double()
    assert PatchConv2d.fits(layer)
    x = torch.randn(len(blocks), 5, size, size, dtype=torch.float64, requires_grad=True)
    plain = gradients(blocks.from_canvas(layer(blocks.to_canvas(x))), layer, x)
    layer.__class__ = PatchConv2d
    assert isinstance(layer, PatchConv2d)
    canvas = blocks.from_canvas(layer.on_canvas(blocks.to_canvas(x), MaskedCanvas(torch.zeros(3, 3, 4).bool())))
    for output in (layer.on_blocks(x, blocks), canvas):
        for ours, expected in zip(gradients(output, layer, x), plain, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "options"),
    [(3, {"stride": 2}), (1, {"groups": 5}), (1, {"padding": 1}), (2, {"stride": 4, "dilation": 2})],
)
def test_other_kernels_are_not_patches(kernel: int, options: dict[str, Any]) -> None:
    assert not PatchConv2d.fits(nn.Conv2d(5, 5, kernel, **options))


@pytest.mark.parametrize(("size", "kernel", "stride"), [(4, 2, 1), (1, 2, 1), (2, 3, 1), (4, 3, 2)])
def test_average_pooling_with_same_padding_equals_the_whole_frame(size: int, kernel: int, stride: int) -> None:
    blocks = layout()
    layer = AvgPool2dSame(kernel, stride, ceil_mode=True, count_include_pad=False)
    x = torch.randn(len(blocks), 5, size, size, dtype=torch.float64, requires_grad=True)
    plain = gradients(blocks.from_canvas(layer(blocks.to_canvas(x))), layer, x)
    layer.__class__ = HaloAvgPool2dSame
    for ours, expected in zip(gradients(layer.on_blocks(x, blocks), layer, x), plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_depthwise_with_an_even_kernel() -> None:
    """Its halo differs between left and right, and the turned kernel's is the other way round."""
    torch.manual_seed(0)
    blocks = layout()
    layer = aware(nn.Conv2d(6, 6, 4, groups=6, bias=False).double(), same=True)
    x = torch.randn(len(blocks), 6, 4, 4, dtype=torch.float64, requires_grad=True)
    assert layer.halo().turned() != layer.halo()
    got = gradients(layer.on_blocks(x, blocks), layer, x)
    for ours, plain in zip(got, gradients(on_the_frame(layer, x, blocks), layer, x), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("size", "halo"), [(4, Halo(1, 1, 1, 1)), (1, Halo(3, 2, 1, 3)), (2, Halo(0, 3, 2, 0))])
def test_windows_hand_gradients_back(size: int, halo: Halo) -> None:
    """As autograd does for a plain selection of rows."""
    blocks = layout()
    rows = torch.randn(len(blocks) * size * size, 4, dtype=torch.float64, requires_grad=True)
    table = blocks.window_table(size, halo)
    windows = Windows.apply(rows, 0.0, table, blocks.window_inverse(size, halo), blocks.nowhere(table, halo))
    plain = torch.cat([rows, rows.new_zeros(1, 4)])[table]
    handed = torch.randn_like(plain)
    assert torch.equal(windows, plain)
    for ours, theirs in zip(
        torch.autograd.grad(windows, rows, handed), torch.autograd.grad(plain, rows, handed), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_two_runs_give_the_same_bits() -> None:
    blocks = layout(batch=4, grid=(7, 7), ratio=0.75)
    for layer, size in ((nn.Conv2d(32, 32, 7, padding=3, groups=32), 8), (nn.Conv2d(32, 32, 3, padding=1), 2)):
        layer, x = aware(layer), torch.randn(len(blocks), 32, size, size, requires_grad=True)
        first, second = (gradients(layer.on_blocks(x, blocks), layer, x) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(kernels.triton is None, reason="Triton is not installed")
@pytest.mark.parametrize(
    ("size", "channels", "kernel", "bias", "dilation"),
    [(4, 40, 7, True, 1), (1, 24, 7, False, 1), (2, 33, 5, True, 1), (3, 16, 3, True, 1), (2, 33, 3, True, 2)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_fused_kernels(
    size: int, channels: int, kernel: int, bias: bool, dilation: int, dtype: torch.dtype, tolerance: float
) -> None:
    """On the GPU, or in Triton's interpreter; against float64 of the same rounded inputs."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    blocks = layout(batch=2)
    reach = dilation * (kernel // 2)
    table = blocks.window_table(size, Halo(reach, reach, reach, reach))
    rows, gradient = (torch.randn(len(blocks) * size * size, channels).to(dtype) for _ in range(2))
    weight, offset = torch.randn(channels, 1, kernel, kernel).to(dtype), torch.randn(channels).to(dtype)
    exact_rows, exact_weight = rows.double().requires_grad_(), weight.double().requires_grad_()
    tables = table, None, None, blocks.frames(size), dilation
    exact = DepthwiseConvolution.apply(exact_rows, exact_weight, offset.double() if bias else None, *tables)
    exact.backward(gradient.double())
    rows, gradient, weight, offset, table = (t.to(device) for t in (rows, gradient, weight, offset, table))
    output = kernels.depthwise(rows, weight, offset if bias else None, table, dilation=dilation)
    of_rows = kernels.depthwise(gradient, weight, None, table, True, dilation)
    of_weight = kernels.depthwise_weight_gradient(rows, gradient, weight, table, dilation)
    assert output.dtype == of_rows.dtype == dtype
    assert of_weight.dtype == torch.float32
    for ours, truth in ((output, exact), (of_rows, exact_rows.grad), (of_weight, exact_weight.grad)):
        assert (ours.cpu().double() - truth).abs().max() <= tolerance * truth.abs().max()


@pytest.fixture
def kernels_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fused kernels, in Triton's interpreter, wherever the engine would take them on a GPU; not tried yet."""
    if kernels.triton is None or torch.cuda.is_available():
        pytest.skip("needs Triton's interpreter")
    monkeypatch.setattr(kernels, "usable", lambda rows: rows.dtype in kernels.DTYPES)
    functional.kernels_work.cache_clear()
    yield
    functional.kernels_work.cache_clear()


def depthwise_on_blocks() -> list[Tensor]:
    torch.manual_seed(0)
    blocks, layer = layout(batch=1), aware(nn.Conv2d(6, 6, 3, padding=1, groups=6))
    x = torch.randn(len(blocks), 6, 2, 2, requires_grad=True)
    return gradients(layer.on_blocks(x, blocks), layer, x)


@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_kernels_that_work_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = kernels.depthwise

    def counted(rows: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append(len(rows))
        return original(rows, *rest, **options)

    monkeypatch.setattr(kernels, "depthwise", counted)
    first = depthwise_on_blocks()
    assert len(calls) == 2 * len(kernels.DTYPES) + 2, "a trial, once, then forward and backward"
    depthwise_on_blocks()
    assert len(calls) == 2 * len(kernels.DTYPES) + 4
    monkeypatch.setattr(kernels, "usable", lambda rows: False)
    for fused, plain in zip(first, depthwise_on_blocks(), strict=True):
        torch.testing.assert_close(fused, plain)


def wrong_by_a_little(*arguments: Any, **options: Any) -> Tensor:
    return working_depthwise(*arguments, **options) * 1.1


def not_a_number(*arguments: Any, **options: Any) -> Tensor:
    return working_depthwise(*arguments, **options) * float("nan")


def does_not_compile(*arguments: Any, **options: Any) -> Tensor:
    raise NameError("Cannot access global variable Any from within @jit'ed function")


working_depthwise = kernels.depthwise


@pytest.mark.usefixtures("kernels_on_the_cpu")
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (wrong_by_a_little, "wrong by 0.1 "),
        (not_a_number, "wrong by inf"),
        (does_not_compile, "NameError: Cannot access"),
    ],
)
def test_broken_kernels_are_not_used_and_one_warning_says_why(
    broken: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "depthwise", broken)
    with pytest.warns(UserWarning, match=reason) as warnings:
        results = depthwise_on_blocks()
    assert len(warnings) == 1
    assert "VIDEOMAC_KERNELS=0" in str(warnings[0].message)
    again = depthwise_on_blocks()  # silently: warnings are errors here
    monkeypatch.setattr(kernels, "usable", lambda rows: False)
    for plain, second, expected in zip(results, again, depthwise_on_blocks(), strict=True):
        assert torch.equal(plain, expected)
        assert torch.equal(second, expected)


@pytest.mark.usefixtures("kernels_on_the_cpu")
def test_kernels_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOMAC_KERNELS", "0")
    monkeypatch.setattr(kernels, "depthwise", does_not_compile)
    depthwise_on_blocks()


@pytest.mark.parametrize("layer", ["3x3", "depthwise"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_weight_gradients_lie_in_memory_as_their_weights(layer: str, memory_format: torch.memory_format) -> None:
    convolution = nn.Conv2d(6, 6, 3, padding=1, groups=1 if layer == "3x3" else 6).to(memory_format=memory_format)
    blocks, handed = layout(), []
    convolution.weight.register_hook(lambda gradient: handed.append(gradient.stride()))
    x = torch.randn(len(blocks), 6, 2, 2)
    aware(convolution).on_blocks(x, blocks).sum().backward()
    assert handed == [convolution.weight.stride()]


def test_somewhere_in_every_table_is_nowhere() -> None:
    """Backward passes name that place for "no gradient"; no row may be fetched there, whatever the mask."""
    for seed in range(20):
        blocks = Blocks(random_mask(2, (3, 3), 0.6, generator=torch.Generator().manual_seed(seed)))
        for size, halo in ((2, Halo(1, 1, 1, 1)), (1, Halo(0, 0, 0, 2)), (2, Halo(0, 1, 0, 0)), (2, Halo(0, 0, 1, 0))):
            table = blocks.window_table(size, halo)
            assert table.flatten()[blocks.nowhere(table, halo)] == len(blocks) * size * size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["convnextv2_atto", "resnet18"])
def test_blocks_equal_masked_on_the_gpu(name: str) -> None:
    """The whole encoder in float32 without TF32, forward and backward, and the same bits twice."""
    from tests.sparse.test_engine import build
    from videomac import SparseEncoder

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    results = {}
    for mode in ("blocks", "masked"):
        encoder = SparseEncoder(build(name), mode=mode).float().cuda().eval()
        frames = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(3)).cuda()
        mask = random_mask(4, (7, 7), 0.75, generator=torch.Generator().manual_seed(4))
        features = encoder(frames, mask)
        features.square().sum().backward()
        results[mode] = [features, *(p.grad for p in encoder.parameters() if p.grad is not None)]
    for ours, reference in zip(results["blocks"], results["masked"], strict=True):
        assert (ours - reference).norm() <= 1e-3 * reference.norm()


def test_as_rows_is_a_view_of_channels_last() -> None:
    images = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert as_rows(images).data_ptr() == images.data_ptr()


# Global response normalisation, against timm's layer on each sample and autograd's derivative of it ------------------


def grn_by_hand_and_by_timm(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients: ours, and timm's."""
    layer = GlobalResponseNorm(x.shape[-1]).to(x.dtype)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    handed = torch.randn_like(x)
    ours = GlobalResponseNormalization.apply(x, layer.weight, layer.bias, layer.eps)
    timms = layer(x.unsqueeze(2)).squeeze(2)  # a tall image, one position wide
    leaves = [x, *layer.parameters()]
    return tuple([out, *torch.autograd.grad(out, leaves, handed)] for out in (ours, timms))  # type: ignore[return-value]


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 3), (4, 48, 16)])
def test_grn_equals_timms_layer(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for ours, timms in zip(
        *grn_by_hand_and_by_timm(torch.randn(shape, dtype=torch.float64, requires_grad=True)), strict=True
    ):
        torch.testing.assert_close(ours, timms, rtol=1e-12, atol=1e-12)


def test_grn_of_a_channel_of_zeros_has_a_gradient() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, dtype=torch.float64)
    x[0, :, 3] = 0
    for ours, timms in zip(*grn_by_hand_and_by_timm(x.requires_grad_()), strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, timms, rtol=1e-12, atol=1e-12)


def test_grn_in_half_precision_takes_its_norms_in_float32() -> None:
    """The squares of these values are beyond float16."""
    torch.manual_seed(0)
    x = (400 * torch.randn(2, 512, 8)).half()
    weight, bias = torch.randn(8), torch.randn(8)
    exact = GlobalResponseNormalization.apply(x.float(), weight, bias, 1e-6)
    half = GlobalResponseNormalization.apply(x, weight, bias, 1e-6)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=5e-3, atol=0.5)
