"""With a prepared layout a network on blocks is one graph, whatever the mask, and computes what it computes without."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.sparse.test_engine import build, gradient_error, output_error, with_smooth_activations
from videomac.models.backbones import create_backbone
from videomac.models.encoder import SparseEncoder
from videomac.models.masking import random_mask
from videomac.models.videomac import VideoMAC

NETWORKS: dict[str, dict[str, Any]] = {
    "convnextv2_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)},
    "test_efficientnet": {},
}
GRID, PATCH, BATCH = (3, 5), 32, 4


def compare(
    module: nn.Module,
    compiled: Callable[[Tensor, Any], Tensor],
    shape: tuple[int, ...],
    prepare: Callable[[Tensor], Any],
) -> None:
    """Three masks through one graph, forward and backward, against the module itself, given the mask."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mask = random_mask(BATCH, GRID, 0.75, generator=generator)
        frames = torch.randn(shape, generator=generator)
        results = []
        for run, given in ((compiled, prepare(mask)), (module, mask)):
            module.zero_grad()
            output = run(frames, given)
            output = output if isinstance(output, Tensor) else output.loss + output.online_prediction.square().mean()
            output.square().mean().backward()
            gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
            results.append((output, torch.cat(gradients)))
        (found, found_gradient), (expected, expected_gradient) = results
        assert output_error(found, expected) < 1e-5
        assert gradient_error(found_gradient, expected_gradient) < 1e-4


def in_one_graph(module: nn.Module, backend: str) -> Callable[[Tensor, Any], Any]:
    torch._dynamo.reset()
    return torch.compile(module, fullgraph=True, dynamic=False, backend=backend)


def check_encoder(encoder: SparseEncoder, patch: int, backend: str) -> None:
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = in_one_graph(encoder, backend)
        shape = (BATCH, 3, GRID[0] * patch, GRID[1] * patch)
        compare(encoder, compiled, shape, lambda mask: encoder.prepare(mask, patch))


def check_model(model: VideoMAC, backend: str) -> None:
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = in_one_graph(model, backend)
        shape = (BATCH, 2, 3, GRID[0] * model.patch_size, GRID[1] * model.patch_size)
        compare(model, compiled, shape, model.prepare)


def small(name: str) -> nn.Module:
    return with_smooth_activations(build(name, **NETWORKS[name])).float()


def one_block() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone("convnextv2_small_isotropic", depth=1, dim=8)


def test_encoder_with_inductor() -> None:
    check_encoder(SparseEncoder(one_block()), 16, "inductor")


def test_model_in_one_graph() -> None:
    check_model(VideoMAC(one_block(), decoder_width=8), "aot_eager")


@pytest.mark.slow
def test_another_batch_size_is_one_graph_too() -> None:
    encoder = SparseEncoder(one_block()).eval()
    compiled = in_one_graph(encoder, "aot_eager")
    for batch in (4, 3):
        mask = random_mask(batch, GRID, 0.75)
        frames = torch.randn(batch, 3, GRID[0] * 16, GRID[1] * 16)
        found, expected = compiled(frames, encoder.prepare(mask, 16)), encoder(frames, mask)
        found.sum().backward()
        assert output_error(found, expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_encoders_with_inductor(name: str) -> None:
    check_encoder(SparseEncoder(small(name)).train(), PATCH, "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_models_with_inductor(name: str) -> None:
    check_model(VideoMAC(small(name), decoder_width=16), "inductor")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prepared_layout_holds_every_table_that_is_asked_for(name: str) -> None:
    """None is made in a forward pass (nor in a backward), for the online and the target network of a batch."""
    model = VideoMAC(small(name), decoder_width=8)
    mask = random_mask(2, GRID, 0.75)
    prepared = model.prepare(mask)
    assert prepared.a is prepared.b
    before = dict(prepared.a.tables)  # type: ignore[union-attr]
    assert before
    assert {table.dtype for table in before.values()} == {torch.int32}
    pair = torch.randn(2, 2, 3, 96, 160)
    twin = copy.deepcopy(model)
    output = model(pair, prepared)
    output.loss.backward()
    assert prepared.a.tables.keys() == before.keys()  # type: ignore[union-attr]
    assert torch.equal(output.loss, twin(pair, mask).loss)
    assert torch.equal(output.mask, mask)


def test_asymmetric_masks_are_prepared_one_by_one() -> None:
    model = VideoMAC(small("convnextv2_tiny"), decoder_width=8, symmetric=False).eval()
    mask, pair = model.sample_mask(2, (96, 160)), torch.randn(2, 2, 3, 96, 160)
    output = model(pair, model.prepare(mask))
    assert torch.equal(output.mask, mask)
    assert torch.equal(output.loss, model(pair, mask).loss)
    with pytest.raises(ValueError, match="hides nothing"):
        model.prepare(torch.zeros(2, *GRID, dtype=torch.bool))


def test_tables_are_made_once_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The online and the target network share them."""
    from videomac.sparse import Blocks

    made: list[int] = []
    original = Blocks.__init__

    def counted(self: Blocks, *arguments: Any) -> None:
        made.append(1)
        original(self, *arguments)

    monkeypatch.setattr(Blocks, "__init__", counted)
    model = VideoMAC(small("convnextv2_tiny"), decoder_width=8)
    made.clear()  # the audit makes some of its own
    model(torch.randn(2, 2, 3, 96, 160), random_mask(2, GRID, 0.75))
    assert len(made) == 1
