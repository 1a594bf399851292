"""The network to fine-tune or probe."""

import numpy as np
import pytest
import timm
import torch

import videomac
from tests.classify.networks import build
from videomac.classify.network import HEAD_STD
from videomac.models.checkpoint import load_backbone, save_backbone


def test_the_head_starts_small_and_the_rest_is_the_pretrained_network(tmp_path):
    pretrained = timm.create_model("test_convnext", num_classes=0)
    save_backbone(pretrained, tmp_path / "backbone", name="test_convnext")
    network = build(tmp_path / "backbone", drop_path=0.3)
    state, loaded = network.model.state_dict(), load_backbone(tmp_path / "backbone").state_dict()
    assert all(torch.equal(state[key], value) for key, value in loaded.items()) and len(loaded) == len(state) - 2
    assert not state["head.fc.bias"].any() and state["head.fc.weight"].abs().max() <= 2
    large = build("test_convnext", num_classes=1000).model.head.fc.weight
    assert large.std().item() == pytest.approx(HEAD_STD, rel=0.05) and HEAD_STD == 2e-5
    assert network.model.stages[3].blocks[-1].drop_path.drop_prob == pytest.approx(0.3)
    assert network.name == "test_convnext" and network.model.training


def test_drop_path_rises_linearly_over_the_blocks():
    with torch.device("meta"):
        model = build("convnextv2_tiny", drop_path=0.2).model
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, [0.2 * block / 17 for block in range(18)], atol=1e-7)


def test_weights_of_a_run_bring_no_drop_path_and_imagenets_colours(tmp_path):
    model = videomac.VideoMAC("test_convnext", decoder_width=16, backbone_args={"drop_path_rate": 0.4})
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": state, "videomac": model.arguments}, tmp_path / "checkpoints" / "last.ckpt")
    network = build(tmp_path)
    assert {getattr(m, "drop_prob", 0.0) for m in network.model.modules()} == {0.0}
    assert network.mean == (0.485, 0.456, 0.406)
    assert build("test_vit").mean == timm.get_pretrained_cfg("test_vit").mean
    assert build("test_vit", image_size=48).model(torch.zeros(1, 3, 48, 48)).shape == (1, 10)
