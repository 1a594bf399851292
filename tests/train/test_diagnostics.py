"""What is said when the numbers go wrong."""

import torch

import videomac
from videomac.train.diagnostics import CollapseWatch, first_bad_module


def test_the_first_bad_module_is_named():
    model = videomac.VideoMAC("test_convnext", decoder_width=16)
    pair, mask = torch.randn(2, 2, 3, 64, 64), model.sample_mask(2, (64, 64))
    stage = model.online.encoder.backbone.get_submodule("stages.2.blocks.1.norm")
    handle = stage.register_forward_hook(lambda module, inputs, output: output * float("inf"))
    assert "online.encoder.backbone.stages.2.blocks.1.norm" in first_bad_module(model, pair, mask)
    handle.remove()
    assert "finite" in first_bad_module(model, pair, mask)
    assert "frames of this batch" in first_bad_module(model, pair / 0, mask)
    with torch.no_grad():
        model.online.decoder.head.bias[0] = float("nan")
    assert "weights online.decoder.head.bias" in first_bad_module(model, pair, mask)


def test_collapse_is_told_once():
    watch = CollapseWatch()
    told = [watch.update(value, step) for step, value in enumerate([0.5, 1.0, 0.02, 0.009, 0.001])]
    assert told[:3] == [None] * 3 and told[4] is None
    assert told[3] is not None and "collapsed" in told[3] and "step 3" in told[3]
