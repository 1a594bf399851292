"""Pooled features of a frozen network."""

import pytest
import timm
import torch

from videomac.classify.features import pooled


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit"])
def test_features_are_what_timm_pools(name):
    model = timm.create_model(name, num_classes=0).eval()
    frames = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        torch.testing.assert_close(pooled(model, frames), model(frames))


def test_layers_of_the_head_that_pretraining_never_reached_are_left_out():
    model = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    frames = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        features = pooled(model, frames)
        torch.testing.assert_close(features, model.forward_features(frames).mean((2, 3)))
    assert features.shape[1] == model.num_features != model(frames).shape[1]
