from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from videomac.models.decoder import Decoder


def example(stride: int, patch_size: int, grid: tuple[int, int], **settings: object) -> tuple[Decoder, Tensor, Tensor]:
    torch.manual_seed(0)
    decoder = Decoder(6, stride, patch_size, width=8, **settings).double()  # type: ignore[arg-type]
    rows, columns = grid
    f = patch_size // stride
    features = torch.randn(2, 6, rows * f, columns * f, dtype=torch.float64)
    mask = torch.rand(2, rows, columns) < 0.5
    return decoder, features, mask


@pytest.mark.parametrize("use_grn", [False, True])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_shape_on_a_grid_that_is_not_square(depth: int, use_grn: bool) -> None:
    decoder, features, mask = example(4, 8, (2, 5), depth=depth, use_grn=use_grn)
    assert decoder(features, mask).shape == (2, 10, 8 * 8 * 3)
    assert len(decoder.blocks) == depth
    assert any("grn" in name for name, _ in decoder.named_parameters()) == (use_grn and depth > 0)
    assert not any(name.endswith("gamma") for name, _ in decoder.named_parameters()), "no layer scale"


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e300])
def test_hidden_features_are_never_read(filler: float) -> None:
    decoder, features, mask = example(4, 8, (3, 4))
    features.requires_grad_()
    hidden = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].expand_as(features)
    poisoned = torch.where(hidden, filler, features)
    clean = torch.where(hidden, 0.0, features)
    assert torch.equal(decoder(poisoned, mask), decoder(clean, mask))


def test_hidden_cells_hold_the_mask_token() -> None:
    decoder, features, mask = example(4, 4, (3, 4), depth=0)
    prediction = decoder(features, mask)
    token = decoder.head(decoder.mask_token).flatten()
    visible = ~mask.flatten(1)
    torch.testing.assert_close(prediction[mask.flatten(1)], token.expand(int(mask.sum()), -1))
    plain = decoder.head(decoder.projection(features)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(prediction[visible], plain[visible])


def test_cells_of_a_patch_are_assembled_by_position() -> None:
    """With a head that writes the cell's own (row, column), each predicted pixel must name the cell it lies in."""
    stride, patch, rows, columns = 2, 6, 2, 3
    decoder = Decoder(6, stride, patch, depth=0)
    cell_rows, cell_columns = rows * 3, columns * 3
    pixels = torch.empty(1, stride * stride * 3, cell_rows, cell_columns)
    for value in range(stride * stride * 3):
        for i in range(cell_rows):
            for j in range(cell_columns):
                pixels[0, value, i, j] = value + 100 * i + 10_000 * j
    patches = decoder._join_cells(pixels)
    assert patches.shape == (1, rows * columns, patch * patch * 3)
    for row in range(rows):
        for column in range(columns):
            for y in range(patch):
                for x in range(patch):
                    for channel in range(3):
                        within = ((y % stride) * stride + x % stride) * 3 + channel
                        i, j = row * 3 + y // stride, column * 3 + x // stride
                        found = patches[0, row * columns + column, (y * patch + x) * 3 + channel]
                        assert found == within + 100 * i + 10_000 * j


def test_patch_must_be_a_multiple_of_the_stride() -> None:
    with pytest.raises(ValueError, match="patch_size 48 must be a multiple of the network's stride 32"):
        Decoder(6, 32, 48)


def test_copies_and_pickles() -> None:
    decoder, features, mask = example(4, 8, (2, 2))
    expected = decoder(features, mask)
    assert torch.equal(copy.deepcopy(decoder)(features, mask), expected)
    assert torch.equal(pickle.loads(pickle.dumps(decoder))(features, mask), expected)


def test_runs_under_autocast() -> None:
    decoder, features, mask = example(4, 8, (2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert decoder.float()(features.float(), mask).isfinite().all()
