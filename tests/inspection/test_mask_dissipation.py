import torch

from videomac import cli
from videomac.inspection.mask_dissipation import reached
from videomac.models.masking import random_mask


def test_the_mask_dissolves_in_the_dense_network_and_stays_in_ours():
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
    assert picture.stat().st_size > 10_000
