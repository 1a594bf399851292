"""What is said when the numbers go wrong."""

import pytest
import torch

import videomac
from videomac.errors import UserError
from videomac.train.diagnostics import CollapseWatch, first_bad_module, require_finite_weights


def test_the_first_bad_module_is_named():
    model = videomac.VideoMAC("test_convnext", decoder_width=16)
    pair, mask = torch.randn(2, 2, 3, 64, 64), model.sample_mask(2, (64, 64))

    def forward() -> None:
        model(pair, mask)

    assert first_bad_module(model, forward) is None
    stage = model.online.encoder.backbone.get_submodule("stages.2.blocks.1.norm")
    handle = stage.register_forward_hook(lambda module, inputs, output: output * float("inf"))
    assert "online.encoder.backbone.stages.2.blocks.1.norm" in first_bad_module(model, forward)
    handle.remove()
    with torch.no_grad():
        model.online.decoder.head.bias[0] = float("nan")
    assert "weight online.decoder.head.bias" in first_bad_module(model, forward)


def test_a_model_that_is_not_finite_is_not_saved():
    model = torch.nn.BatchNorm2d(3)
    require_finite_weights(model, 7)
    model.running_var[1] = float("inf")
    with pytest.raises(
        UserError,
        match=r"running_var, a statistic of BatchNorm, .* after optimizer step 7: no checkpoint was written over",
    ):
        require_finite_weights(model, 7)


def test_collapse_is_told_once():
    watch = CollapseWatch()
    told = [watch.update(value, step) for step, value in enumerate([0.5, 1.0, 0.02, 0.009, 0.001])]
    assert told[:3] == [None] * 3 and told[4] is None
    assert told[3] is not None and "collapsed" in told[3] and "step 3" in told[3]
