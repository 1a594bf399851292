import pytest

from videomac import cli
from videomac.errors import UserError
from videomac.inspection.command import inspect_backbone, run
from videomac.inspection.config import InspectConfig


def test_the_numbers_of_table_2_and_the_cost_of_the_visible_quarter(capsys):
    run(InspectConfig(name="resnet18"))
    out = capsys.readouterr().out
    assert "11.69M parameters, 1.81G multiply-adds for 224x224 pixels" in out
    assert "on visible blocks" in out
    # 12 of 49 patches are visible; every multiply-add of ResNet-18 is a convolution's.
    found = inspect_backbone("resnet18")
    assert found.masked_multiply_adds * 49 == found.encoder_multiply_adds * 12
    assert [(stage.stride, stage.channels) for stage in found.stages][-1] == (32, 512)


def test_what_each_layer_became():
    layers = {layer.name: layer.became for layer in inspect_backbone("regnety_002", (64, 96), 0.5).layers}
    assert layers["s1.b1.conv2.conv"] == "halo 1,0,1,0"
    assert layers["s2.b1.se"] == "per sample"
    assert layers["s1.b1.conv1.bn"] == "batch statistics over visible positions"
    assert layers["s1.b1.conv1.conv"] == "matrix product"
    assert layers["s1.b1.act3"] == "unchanged"
    assert "s2.b1.se.fc1" not in layers  # a part of its squeeze-excite


def test_a_network_for_the_masked_canvas_names_the_layer():
    found = inspect_backbone("nf_resnet26", (64, 64), 0.5)
    assert found.mode == "masked"
    assert "ScaledStdConv2d" in found.blocks_obstacle


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("convmixer_768_32", "one stride"),
        ("vit_tiny_patch16_224", "it is a vision transformer, not a ConvNet: blocks.0.attn"),
        ("edgenext_xx_small", "it is partly a transformer: stages.1.blocks.1"),
        ("mixer_b16_224", "MlpMixer does not take frames of any size"),
        ("resnest14d", "layer1.0.conv2.bn1 (BatchNorm2d)"),
    ],
)
def test_networks_that_cannot_be_used_are_refused_by_name(name, culprit, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["inspect", name])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert name in error and culprit in error and error.count("\n") == 1
    assert "choose a ConvNet, such as convnextv2_tiny or resnet50" in error and "64x128:" not in error


def test_an_unfinished_name_offers_those_that_begin_with_it():
    with pytest.raises(UserError, match=r"did you mean (mobilenetv4\w+( or )?){3}\?"):
        inspect_backbone("mobilenetv4")


def test_a_frame_that_the_stride_does_not_divide():
    with pytest.raises(UserError, match="multiple of the stride 32"):
        inspect_backbone("resnet18", (100, 224))
