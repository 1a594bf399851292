"""Pictures of a classifier."""

import numpy as np
import pytest
import torch
from PIL import Image

from videomac.classify.plots import _largest_of_cells, draw_confusion


@pytest.mark.parametrize("classes", [2, 40, 41, 300])
def test_a_confusion_matrix_of_any_size_is_drawn(tmp_path, classes):
    confusion = torch.randint(0, 3, (classes, classes), generator=torch.Generator().manual_seed(0))
    confusion[1] = 0  # a class without images
    draw_confusion(confusion, [f"class {n}" for n in range(classes)], tmp_path / "c.png", title="a network")
    with Image.open(tmp_path / "c.png") as image:
        assert min(image.size) > 300 and np.asarray(image).std() > 10


def test_a_large_confusion_matrix_keeps_every_mistake_visible():
    shares = np.zeros((1000, 1000))
    shares[617, 3] = 40.0
    assert _largest_of_cells(shares, 500)[308, 1] == 40.0
    assert _largest_of_cells(shares[:999, :999], 500).shape == (500, 500)
