"""Several stages of one network, of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.stride import StageFeatures


def share_a_pass(extractors: Sequence[FeatureExtractor]) -> bool:
    """Whether the maps of all these can be had of one forward pass, that of the last.

    They are extractors of one network at one stride. Whatever takes strides from a network for a deep stage leaves
    those before a stage alone that has the stride already, so that the deepest network holds all the others.

    Args:
        extractors: from the first stage to the last.
    """
    networks = [extractor.network for extractor in extractors]
    if len(networks) < 2 or not all(isinstance(network, StageFeatures) for network in networks):
        return False
    return len({(extractor.stride, extractor.pads, _record(extractor)) for extractor in extractors}) == 1


def _record(extractor: FeatureExtractor) -> str:
    """What of the description must agree."""
    return str({key: extractor.description[key] for key in ("backbone", "mean", "std")})


class SharedExtractor(nn.Module):
    """The maps of several extractors for which `share_a_pass`, for the cost of the last."""

    def __init__(self, extractors: Sequence[FeatureExtractor]) -> None:
        """Take them, from the first stage to the last.

        Raises:
            ValueError: they do not share a pass.
        """
        super().__init__()
        if not share_a_pass(extractors):
            raise ValueError("these extractors are not of one network at one stride")
        self.deepest = extractors[-1]
        self._caught: dict[int, Tensor] = {}
        self._pools: list[int] = []
        for number, extractor in enumerate(extractors[:-1]):
            network: Any = extractor.network
            self._pools.append(network.pool)
            module = self.deepest.network.get_submodule(f"model.{network.module}")
            module.register_forward_hook(lambda _, __, output, number=number: self._caught.update({number: output}))

    def forward(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> list[Float[Tensor, "batch channels rows columns"]]:
        """One map for each extractor of RGB frames with values in [0, 1]; see `FeatureExtractor`."""
        last = self.deepest(frames)
        maps = [self._caught.pop(number) for number in range(len(self._pools))]
        pooled = [F.avg_pool2d(map_, pool) if pool > 1 else map_ for map_, pool in zip(maps, self._pools, strict=True)]
        return [*pooled, last]
