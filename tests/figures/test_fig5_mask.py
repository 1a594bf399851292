"""Fig. 5: its data."""

from __future__ import annotations

import numpy as np

from videomac.inspection import mask_dissipation


def test_the_data_of_figure_5_are_its_maps() -> None:
    _, data = mask_dissipation.figure("test_convnext", (64, 96), 0.75)
    hidden = data["mask"]
    assert hidden.shape == (2, 3)
    for name, values in data.items():
        if name.startswith("sparse_"):
            scale = (values.shape[0] // 2, values.shape[1] // 3)
            assert (values[np.kron(hidden, np.ones(scale, dtype=bool))] == 0).all()
    assert (data["dense_stages.3"] > 0).all(), "dissolved"
