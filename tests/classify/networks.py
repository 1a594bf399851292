"""The network of a fine-tuning, with few options spelled out."""

from typing import Any

from videomac.classify.network import Network, build_network


def build(backbone: Any, **changed: Any) -> Network:
    settings = {"pretrained": None, "which": "online", "image_size": 32, "seed": 0, "num_classes": 10}
    return build_network(str(backbone), **{**settings, **changed})
