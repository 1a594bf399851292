import numpy as np
import torch
from PIL import Image

from videomac import cli
from videomac.inspection.mask_dissipation import figure, reached
from videomac.models.masking import random_mask


def test_the_mask_vanishes_in_the_dense_network_and_stays_in_ours():
    mask = random_mask(1, (5, 5), 0.75, generator=torch.Generator().manual_seed(0))
    stages, dense, sparse = reached("test_resnet", (160, 160), mask)
    for stage, dense_map, sparse_map in zip(stages, dense, sparse, strict=True):
        cell = dense_map.shape[0] // 5
        hidden = mask[0].repeat_interleave(cell, 0).repeat_interleave(cell, 1)
        assert torch.all(sparse_map[hidden] == 0) and torch.all(sparse_map[~hidden] > 0), stage
        assert (dense_map[hidden] > 0).any() or stage == "frame"
    # This network is small and so is its field of view; most of what is hidden is reached all the same.
    assert (dense[-1][mask[0]] > 0).float().mean() > 0.5


def test_the_command_draws_it(tmp_path, capsys):
    picture = tmp_path / "new" / "figure5.png"
    try:
        cli.main(["inspect", "test_resnet", "--image_size", "160", "--picture", str(picture)])
    except SystemExit as stopped:
        assert not stopped.code
    image = Image.open(picture)
    image.load()
    assert image.size[0] > image.size[1], "five stages side by side, dense over sparse"


def test_the_picture_shows_its_data():
    """Axis by axis: the hidden patches are outlined, and nothing is drawn where nothing has arrived."""
    picture, data = figure("test_resnet", (160, 160), 0.75)
    mask, stages = data["mask"], [name.removeprefix("dense_") for name in data if name.startswith("dense_")]
    axes = np.array(picture.axes).reshape(2, len(stages))
    for kind, row in zip(("dense", "sparse"), axes, strict=True):
        assert row[0].get_ylabel().startswith(kind)
        for stage, axis in zip(stages, row, strict=True):
            values, cell = data[f"{kind}_{stage}"], data[f"{kind}_{stage}"].shape[0] // 5
            assert np.array_equal(np.ma.getmaskarray(axis.images[0].get_array()), values == 0)
            corners = {(round(r.get_x() + 0.5) // cell, round(r.get_y() + 0.5) // cell) for r in axis.patches}
            assert corners == {(column, row) for row, column in np.argwhere(mask).tolist()}
            hidden = np.kron(mask, np.ones((cell, cell), dtype=bool))
            assert f"{(values[hidden] > 0).mean():.0%} of hidden reached" in axis.get_title()
            assert stage in axis.get_title()
    assert "0% of hidden" in axes[1, -1].get_title()
