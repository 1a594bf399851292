"""The released code's numbers, and its checkpoint layout."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from videomac.errors import UserError
from videomac.models import official
from videomac.models.backbones import create_backbone
from videomac.models.videomac import VideoMAC
from videomac.train.optim import parameter_groups

LOSSES = ["loss", "online_loss", "target_loss", "consistency_loss"]


# --- The authors' own numbers, where the data is -------------------------------------------------------------------


def golden(folder: Path) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
    tensors = load_file(folder / "tensors.safetensors")
    tensors = {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}
    pair = torch.stack([tensors["frame_a"], tensors["frame_b"]], dim=1)
    return pair, tensors, json.loads((folder / "trajectory.json").read_text())


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("convnextv2", "blocks"),
        ("convnextv2", "masked"),
        ("resnet_bottleneck", "blocks"),
        pytest.param("resnet_bottleneck", "masked", marks=pytest.mark.slow),
    ],
)
def test_outputs_and_four_training_steps_are_the_authors(shared_data: Path, kind: str, mode: str) -> None:
    folder = shared_data / "official-golden" / kind
    pair, expected, run = golden(folder)
    model = VideoMAC.from_official(folder / "mac-checkpoint.pth", mode=mode).double()
    mask = expected["mask"]

    encoded = model.online.encoder(pair[:, 0], mask)
    assert relative_error(encoded, expected["encoder_output"]) < 1e-6
    out = model(pair, mask)
    for found, name in ((out.online_prediction, "online_prediction"), (out.target_prediction, "target_prediction")):
        assert relative_error(found, expected[name].flatten(2).transpose(1, 2)) < 1e-6

    settings = run["optimizer"]
    groups = parameter_groups(model, settings["weight_decay"])
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=settings["betas"])
    for step in run["trajectory"]:
        out = model(pair, mask)
        optimizer.zero_grad()
        out.loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in model.online.parameters() if p.grad is not None])
        assert {name: getattr(out, name).item() for name in LOSSES} == pytest.approx(
            {name: step[name] for name in LOSSES}, rel=1e-9
        )
        assert norm.item() == pytest.approx(step["grad_norm"], rel=1e-9)
        optimizer.step()
        model.update_target(step["momentum"])


@pytest.mark.parametrize("change", ["normalize_over_batch", "add_stage_norms"])
def test_the_authors_numbers_tell_the_difference(
    shared_data: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GRN per sample, or no norm after the stages: far beyond the tolerance of the test above."""
    folder = shared_data / "official-golden" / "convnextv2"
    pair, expected, run = golden(folder)
    model = VideoMAC.from_official(folder / "mac-checkpoint.pth").double()
    weights = model.state_dict()
    with monkeypatch.context() as patch:
        patch.setattr(official, change, lambda backbone: backbone)
        changed = VideoMAC(**model.arguments).double()
    kept = {key: value for key, value in weights.items() if "stage_norms" not in key or change != "add_stage_norms"}
    changed.load_state_dict(kept)
    out = changed(pair, expected["mask"])
    encoded = changed.online.encoder(pair[:, 0], expected["mask"])
    assert relative_error(encoded, expected["encoder_output"]) > 1e-2
    first = run["trajectory"][0]
    assert all(abs(getattr(out, name).item() / first[name] - 1) > 1e-6 for name in LOSSES)


# --- The same guarded by a small file of our own making ------------------------------------------------------------


def golden_maker() -> ModuleType:
    path = Path(__file__).parents[1] / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_make", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = golden_maker()


@pytest.mark.parametrize("mode", ["blocks", "masked"])
@pytest.mark.parametrize(("network", "preset"), make.CASES)
def test_three_training_steps_are_the_recorded_ones(network: str, preset: str, mode: str) -> None:
    recorded = json.loads(make.GOLDEN.read_text())[f"{network} {preset}"]
    found = make.trajectory(make.build(network, preset, mode))
    assert [list(step) for step in found] == [list(step) for step in recorded]
    for step, expected in zip(found, recorded, strict=True):
        assert step == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_the_presets_differ_wherever_they_should() -> None:
    recorded = json.loads(make.GOLDEN.read_text())
    for network in make.NETWORKS:
        paper, ours = recorded[f"{network} paper"][0], recorded[f"{network} official"][0]
        same_features = network.startswith("resnet")  # no stage norms and no GRN in a ResNet
        assert (abs(paper["feature_std"] / ours["feature_std"] - 1) < 1e-9) == same_features
        assert abs(paper["loss"] / ours["loss"] - 1) > 1e-4  # the decoder's block differs for every network


# --- The choices, one by one ----------------------------------------------------------------------------------------


def tiny(network: str, **settings: Any) -> VideoMAC:
    name, backbone_args = make.NETWORKS[network]
    return VideoMAC(name, backbone_args=backbone_args, decoder_width=8, preset="official", **settings)


def test_grn_takes_its_norm_over_the_whole_batch() -> None:
    model = make.build("convnextv2", "official").online.eval()
    pair, mask = make.inputs()
    frames = pair[:, 0]
    together, alone = model(frames, mask), model(frames[:1], mask[:1])
    assert relative_error(together[:1], alone) > 1e-3
    paper = make.build("convnextv2", "paper").online.eval()
    torch.testing.assert_close(paper(frames, mask)[:1], paper(frames[:1], mask[:1]))


@pytest.mark.parametrize("conv_mlp", [False, True])
def test_grn_over_the_batch_is_the_same_in_both_modes(conv_mlp: bool) -> None:
    """Channels last in the larger ConvNeXts, channels first (`conv_mlp`) in atto to nano."""
    pair, mask = make.inputs()
    settings = {"depths": (1, 1, 1, 1), "dims": (4, 8, 12, 16), "conv_mlp": conv_mlp}
    torch.manual_seed(0)
    blocks = VideoMAC("convnextv2_tiny", backbone_args=settings, preset="official", mode="blocks").double()
    masked = VideoMAC("convnextv2_tiny", backbone_args=settings, preset="official", mode="masked").double()
    for parameter in blocks.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    masked.load_state_dict(blocks.state_dict())
    encoded = blocks.online.encoder(pair[:, 0], mask)
    assert relative_error(masked.online.encoder(pair[:, 0], mask), encoded) < 1e-12
    alone = blocks.online.encoder(pair[:1, 0], mask[:1])
    assert relative_error(alone, encoded[:1]) > 1e-3


def test_stage_norms_exist_for_convnexts_only() -> None:
    for network, expected in (("convnextv2", [4, 8, 12, 16]), ("convnext", [4, 8, 12, 16]), ("resnet_basic", [])):
        backbone = tiny(network).online.encoder.backbone
        norms = [p for name, p in backbone.named_parameters() if re.fullmatch(r"stage_norms\.\d\.weight", name)]
        assert [len(p) for p in norms] == expected


def test_decoder_block_is_v2_for_every_backbone() -> None:
    for network in make.NETWORKS:
        names = tiny(network).online.decoder.state_dict()
        assert "blocks.0.mlp.grn.weight" in names


def test_weight_decay_follows_the_authors_shapes() -> None:
    model = tiny("convnextv2")
    decayed, spared = (
        {name for name, p in model.named_parameters() if any(p is other for other in group["params"])}
        for group in parameter_groups(model, 0.05)
    )
    grn = {name for name in decayed | spared if ".grn." in name}
    assert len(grn) == 2 * (5 + 1)
    assert grn <= decayed
    assert "online.decoder.mask_token" in decayed
    assert all(
        name.endswith(".bias") or ".norm" in name or "norms" in name or ".0.weight" in name or ".1.weight" in name
        for name in spared
    )
    paper = make.build("convnextv2", "paper")
    assert not {n for n in dict(paper.named_parameters()) if ".grn." in n} & paper.weight_decay_exceptions()


def test_initialisation() -> None:
    torch.manual_seed(0)
    settings = {"depths": (1, 1, 1, 1), "dims": (32, 48, 64, 80)}
    model = VideoMAC("convnextv2_tiny", backbone_args=settings, decoder_width=64, preset="official").online
    # A standard normal cut off at 2 has deviation 0.88.
    wide, narrow = pytest.approx(0.88, rel=0.1), pytest.approx(0.02, rel=0.15)
    backbone, decoder = model.encoder.backbone, model.decoder
    block = backbone.stages[1].blocks[0]
    assert backbone.stem[0].weight.std().item() == wide
    assert backbone.stages[1].downsample[1].weight.std().item() == narrow
    assert block.conv_dw.weight.std().item() == wide
    assert block.mlp.fc1.weight.std().item() == wide
    assert decoder.projection.weight.std().item() == wide
    assert decoder.blocks[0].conv_dw.weight.std().item() == wide
    assert decoder.head.weight.std().item() == wide
    uniform = 1 / 64**0.5 / 3**0.5  # PyTorch's default for 64 inputs
    assert decoder.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(uniform, rel=0.1)
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.3)
    small = {"layers": (1, 1, 1, 1), "channels": (16, 32, 32, 32)}
    resnet = VideoMAC(
        "resnet18_patchify", backbone_args=small, decoder_width=8, preset="official"
    ).online.encoder.backbone
    assert resnet.conv1.weight.std().item() == wide
    assert resnet.layer2[0].conv1.weight.std().item() == narrow


def test_weights_of_a_given_module_are_kept() -> None:
    backbone = create_backbone("convnextv2_tiny", depths=(1, 1, 1, 1), dims=(4, 8, 12, 16))
    before = backbone.stem[0].weight.detach().clone()
    assert torch.equal(
        VideoMAC(backbone, decoder_width=8, preset="official").online.encoder.backbone.stem[0].weight, before
    )


# --- The authors' checkpoint layout ---------------------------------------------------------------------------------


def kernel(weight: Tensor) -> Tensor:
    """A convolution as MinkowskiEngine stores it: [positions, inputs, outputs], the first (row) axis fastest."""
    _, inputs, height, width = weight.shape
    positions = [weight[:, :, row, column].T for column in range(width) for row in range(height)]
    stacked = torch.stack(positions)
    if inputs == 1 or (height, width) == (1, 1):
        return stacked.squeeze(1) if inputs == 1 else stacked.squeeze(0)
    return stacked


def in_the_authors_layout(model: VideoMAC, which: str) -> dict[str, Tensor]:
    """Write a network the way the released code names and shapes its parameters, layer by layer."""
    network = getattr(model, which)
    backbone, decoder = network.encoder.backbone, network.decoder
    state: dict[str, Tensor] = {}

    def put(name: str, module: nn.Module) -> None:
        for key, value in module.named_parameters():
            state[f"{name}.{key}"] = value.detach()

    def put_sparse(name: str, module: nn.Module) -> None:
        state[f"{name}.kernel"] = kernel(module.weight.detach())  # type: ignore[operator]
        if module.bias is not None:
            state[f"{name}.bias"] = module.bias.detach()[None]  # type: ignore[index]

    def put_grn(name: str, module: nn.Module, shape: tuple[int, ...]) -> None:
        state[f"{name}.gamma"] = module.weight.detach().view(shape)  # type: ignore[operator]
        state[f"{name}.beta"] = module.bias.detach().view(shape)  # type: ignore[operator]

    if hasattr(backbone, "stem"):
        put("encoder.downsample_layers.0.0", backbone.stem[0])
        put("encoder.downsample_layers.0.1", backbone.stem[1])
        for index, stage in enumerate(backbone.stages):
            if index:
                put(f"encoder.downsample_layers.{index}.0.ln", stage.downsample[0])
                put_sparse(f"encoder.downsample_layers.{index}.1", stage.downsample[1])
            for number, block in enumerate(stage.blocks):
                name = f"encoder.stages.{index}.{number}"
                put_sparse(f"{name}.dwconv", block.conv_dw)
                put(f"{name}.norm.ln", block.norm)
                put(f"{name}.pwconv1.linear", block.mlp.fc1)
                put(f"{name}.pwconv2.linear", block.mlp.fc2)
                if hasattr(block.mlp, "grn"):
                    put_grn(f"{name}.grn", block.mlp.grn, (1, -1))
            put(f"encoder.norm{index}.ln", backbone.stage_norms[index])
    else:
        put("encoder.stem.0", backbone.conv1)
        put("encoder.stem.1", backbone.bn1)
        for stage in (1, 2, 3, 4):
            for number, block in enumerate(getattr(backbone, f"layer{stage}")):
                name = f"encoder.layer{stage}.{number}"
                for index in (1, 2, 3):
                    if hasattr(block, f"conv{index}"):
                        put_sparse(f"{name}.conv{index}", getattr(block, f"conv{index}"))
                        put(f"{name}.norm{index}.ln", getattr(block, f"bn{index}"))
                if block.downsample is not None:
                    put_sparse(f"{name}.downsample.0", block.downsample[0])
                    put(f"{name}.downsample.1.ln", block.downsample[1])
    state["mask_token"] = decoder.mask_token.detach()
    put("proj", decoder.projection)
    put("pred", decoder.head)
    for number, block in enumerate(decoder.blocks):
        put(f"decoder.{number}.dwconv", block.conv_dw)
        put(f"decoder.{number}.norm", block.norm)
        put(f"decoder.{number}.pwconv1", block.mlp.fc1)
        put(f"decoder.{number}.pwconv2", block.mlp.fc2)
        put_grn(f"decoder.{number}.grn", block.mlp.grn, (1, 1, 1, -1))
    return state


@pytest.mark.parametrize("network", list(make.NETWORKS))
def test_both_networks_are_read_from_the_authors_layout(network: str, tmp_path: Path) -> None:
    model = make.build(network, "official").float().double()  # rounded, so that the file holds them exactly
    path = tmp_path / "mac-5.pth"
    torch.save(
        {
            "model_online": {},
            "online_without_ddp": in_the_authors_layout(model, "online"),
            "target_without_ddp": in_the_authors_layout(model, "target"),
            "epoch": 5,
            "optimizer": {"state": {}, "param_groups": []},
            "args": argparse.Namespace(lr=1e-3, input_size=224, device="cuda"),
        },
        path,
    )
    found = VideoMAC.from_official(path).double()
    pair, mask = make.inputs()
    expected, out = model(pair, mask), found(pair, mask)
    assert relative_error(out.online_prediction, expected.online_prediction) < 1e-12
    assert relative_error(out.target_prediction, expected.target_prediction) < 1e-12
    assert found.preset == "official"
    assert found.online.encoder.backbone.num_classes == 0


def test_a_missing_target_is_a_copy_of_the_online_network(tmp_path: Path) -> None:
    model = tiny("convnextv2")
    state = {f"module.{key}": value for key, value in in_the_authors_layout(model, "online").items()}
    torch.save({"model_online": state}, tmp_path / "mac.pth")
    found = VideoMAC.from_official(tmp_path / "mac.pth")
    target = found.target.state_dict()
    assert all(torch.equal(target[key], value) for key, value in found.online.state_dict().items())
    assert not any(p.requires_grad for p in found.target.parameters())


def test_files_that_are_not_theirs_are_refused(tmp_path: Path) -> None:
    model = tiny("resnet_basic")
    state = in_the_authors_layout(model, "online")

    def refused(content: object, message: str) -> None:
        path = tmp_path / "file.pth"
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            VideoMAC.from_official(path)

    refused(state, "neither 'online_without_ddp' nor 'model_online'")
    refused([1, 2], "neither 'online_without_ddp' nor 'model_online'")
    refused({"model_online": {"a": torch.zeros(1)}}, "cannot be read from its parameters, .* is missing")
    refused({"model_online": {**state, "extra": torch.zeros(3)}}, r"extra of shape \(3,\) has no place")
    short = {key: value for key, value in state.items() if key != "encoder.layer2.0.norm2.ln.bias"}
    refused({"model_online": short}, r"nothing in the file fills encoder\.backbone\.layer2\.0\.bn2\.bias")
    with pytest.raises(UserError, match="does not exist"):
        VideoMAC.from_official(tmp_path / "missing.pth")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def test_code_in_a_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"online_without_ddp": {}, "args": argparse.Namespace(trap=Evil())}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"holds Python objects \(\w+\.system\), which could run code"):
        VideoMAC.from_official(tmp_path / "evil.pth")
    assert not (tmp_path / "hacked").exists()
