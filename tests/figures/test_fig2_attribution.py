"""Fig. 2: what its numbers mean, and what stands where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.figures.pictures import flat_pictures
from videomac.figures import fig2_attribution as attribution
from videomac.models.videomac import VideoMAC


def tiny_network() -> nn.Module:
    torch.manual_seed(0)
    model = VideoMAC("convnextv2_tiny", decoder_width=8, backbone_args={"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]})
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.online.double().eval()


def test_a_contribution_is_what_the_content_of_a_cell_changes() -> None:
    """Against finite differences: let the content of a cell fade by a little and look at every hidden value."""
    network = tiny_network()
    torch.manual_seed(3)
    frame = torch.randn(3, 64, 64, dtype=torch.float64)
    mask = torch.tensor([[[True, False], [True, True]]])
    directions = torch.Generator().manual_seed(1)
    maps = attribution.contributions(network, frame, mask, 8, draws=400, generator=directions)[0]
    assert maps.shape == (8, 8) and (maps[:4, :4] == 0).all() and (maps[4:] == 0).all(), "hidden is never read"
    mean = frame[:, :32, 32:].mean((1, 2))
    for row, column in ((0, 4), (2, 6), (3, 7)):
        content = torch.zeros_like(frame)
        place = np.s_[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        content[place] = frame[place] - mean[:, None, None]
        with torch.no_grad():
            change = network((frame + 1e-5 * content)[None], mask) - network((frame - 1e-5 * content)[None], mask)
        exact = (change[:, [0, 2, 3]] / 2e-5).square().mean().item()
        assert maps[row, column].item() == pytest.approx(exact, rel=0.3), "400 random directions"
    flat = frame.clone()
    flat[:, :32, 32:] = mean[:, None, None]
    assert attribution.contributions(network, flat, mask, 8).max() < 1e-20, "where nothing is to be seen"


def test_every_patch_is_shown_and_the_average_counts_only_the_masks_that_show_it() -> None:
    masks = attribution.covering_masks(6, (3, 5), 0.75, torch.Generator().manual_seed(0))
    assert masks.shape == (10, 3, 5) and ((~masks).flatten(1).sum(1) == 3).all(), "two rounds of five"
    assert ((~masks).sum(0) == 2).all()
    uneven = attribution.covering_masks(1, (2, 2), 0.3, torch.Generator().manual_seed(0))
    assert ((~uneven).sum(0) >= 1).all() and ((~uneven).flatten(1).sum(1) == 2).all()
    seen = (~masks).repeat_interleave(2, 1).repeat_interleave(2, 2).double()
    heat = attribution.heat_map(9 * seen, masks)
    assert heat.shape == (6, 10) and torch.equal(heat, torch.full_like(heat, 3.0))
    assert attribution.correlation(heat + torch.eye(10).double()[:6], torch.eye(10).double()[:6]) == pytest.approx(1)


def test_each_row_shows_a_frame_its_mask_its_reconstruction_and_its_map() -> None:
    heats = [np.linspace(0, 4, 24, dtype=np.float32).reshape(4, 6), np.eye(4, 6, dtype=np.float32)]
    looked = [
        attribution.Looked(title, flat_pictures(value), heat)
        for title, value, heat in (("past", 10, heats[0]), ("current", 110, heats[1]))
    ]
    figure = attribution.where_it_looks(looked, 0.25, 7)
    rows = [figure.axes[:4], figure.axes[4:8]]
    for row, item, value in zip(rows, looked, (10, 110), strict=True):
        shown = [int(axis.images[0].get_array().max()) for axis in row]
        assert shown == [value, value + 10, value + 30, value], "frame, masked, pasted; the frame in grey"
        heat = row[3].images[1]
        assert np.allclose(heat.get_array(), item.heat / np.quantile(item.heat, 0.99))
        assert heat.get_clim() == (0, 1) and tuple(heat.get_extent()) == (-0.5, 11.5, 7.5, -0.5), "over all the frame"
        assert row[0].get_ylabel() == item.title
    assert "mean of 7 masks" in figure.get_suptitle() and "correlate by 0.25" in figure.get_suptitle()
