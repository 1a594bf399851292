"""Flat pictures that are told apart by their value."""

from __future__ import annotations

import torch

from videomac.reconstruction.pictures import Reconstruction


def flat_pictures(value: int, count: int = 1) -> Reconstruction:
    """Frame, masked, reconstruction and pasted: `value`, then ten more each."""
    return Reconstruction(*(torch.full((count, 3, 8, 12), value + 10 * k, dtype=torch.uint8) for k in range(4)))
