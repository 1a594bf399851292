"""What a user may name as a backbone: one rule, and the four commands that follow it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

import videomac
from tests.classify.folders import write_images
from videomac.data.transforms import IMAGENET_MEAN
from videomac.errors import UserError
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.synthetic import scene, write_davis
from videomac.exporting import command as exporting
from videomac.exporting.config import ExportConfig
from videomac.models.checkpoint import save_backbone
from videomac.models.resolve import find_weights, resolve
from videomac.models.videomac import VideoMAC

NAME = "test_convnext"
"""timm's smallest ConvNeXt; its own pixels have mean 0.5, unlike those that we pre-train on."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, whose two networks differ, with the online one exported to `backbone/`."""
    torch.manual_seed(7)
    model = VideoMAC(NAME, decoder_width=8)
    for parameter in model.target.parameters():
        parameter.data += 1
    folder = tmp_path_factory.mktemp("source") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "videomac": model.arguments}, folder / "checkpoints" / "last.ckpt")
    save_backbone(model, folder / "backbone", name=NAME)
    return folder


SPELLINGS = {
    "a run's folder": "{run}",
    "a checkpoint": "{run}/checkpoints/last.ckpt",
    "an exported folder": "{run}/backbone",
    "an exported file": "{run}/backbone/model.safetensors",
}
everything = pytest.mark.parametrize("spelling", [*SPELLINGS.values(), "local-dir:{run}/backbone"])
saved = pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=list(SPELLINGS))


def same(network: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(value, state[key]) for key, value in own.items())


@everything
def test_every_spelling_gives_the_weights(run: Path, spelling: str) -> None:
    network, weights = resolve(spelling.format(run=run))
    assert same(network, load_file(run / "backbone" / "model.safetensors"))
    assert tuple(network.pretrained_cfg["mean"]) == IMAGENET_MEAN  # as in our pre-training, not as in timm's
    expected = "timm" if spelling.startswith("local-dir:") else f"{spelling.format(run=run)} (online)"
    assert weights == expected


def test_the_target_network(run: Path) -> None:
    network, weights = resolve(run, network="target")
    online = load_file(run / "backbone" / "model.safetensors")
    assert all(torch.equal(value, online[key] + 1) for key, value in network.named_parameters())
    assert weights == f"{run} (target)"
    for exported in (run / "backbone", run / "backbone" / "model.safetensors"):
        with pytest.raises(UserError, match="holds no target network"):
            resolve(exported, network="target")


def test_a_timm_name_has_random_weights_of_the_seed() -> None:
    torch.manual_seed(3)
    expected = timm.create_model(NAME, num_classes=0).state_dict()
    network, weights = resolve(NAME, seed=3)
    assert same(network, expected) and weights == "random (seed 3)"
    assert not same(resolve(NAME, seed=4)[0], expected)


@pytest.mark.parametrize(
    ("name", "pretrained", "downloads"),
    [
        (NAME, None, False),
        (NAME, True, True),
        (f"{NAME}.r160_in1k", None, True),
        (f"{NAME}.r160_in1k", False, False),
        (f"hf-hub:timm/{NAME}", None, True),
        (f"hf-hub:timm/{NAME}", False, True),
        (f"local-dir:runs/{NAME}", False, True),
    ],
)
def test_weights_are_timms_if_the_name_has_a_tag_or_the_user_says_so(
    name: str, pretrained: bool | None, downloads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def create(name: str, **arguments: Any) -> nn.Module:
        asked.append({"name": name, **arguments})
        return nn.Identity()

    monkeypatch.setattr("videomac.models.resolve.create_backbone", create)
    _, weights = resolve(name, pretrained=pretrained)
    assert asked == [{"name": name, "pretrained": downloads}]
    assert weights == ("timm" if downloads else "random (seed 0)")


def test_a_state_dict_for_a_timm_name(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    state = timm.create_model(NAME).state_dict()  # with classifier
    torch.save(state, file)
    network, weights = resolve(NAME, weights=file)
    assert same(network, {key: state[key] for key in network.state_dict()}) and weights == str(file)
    with pytest.raises(UserError, match="does not fit resnet18: it has no conv1"):
        resolve("resnet18", weights=file)
    with pytest.raises(UserError, match="brings its own weights"):
        resolve(run, weights=file)


def test_networks_of_one_size_are_built_for_the_images() -> None:
    assert resolve("test_vit", image_size=48)[0](torch.zeros(1, 3, 48, 48)).ndim == 2
    assert resolve("test_vit")[0](torch.zeros(1, 3, 160, 160)).ndim == 2
    assert resolve(NAME, image_size=48)[0](torch.zeros(1, 3, 64, 64)).ndim == 2


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("test_convnxt", "unknown backbone 'test_convnxt': did you mean test_convnext"),
        ("raw-pixels", "unknown backbone 'raw-pixels'"),  # of `eval` alone, which knows it
        ("runs/none", "runs/none does not exist"),
        ("none.ckpt", "none.ckpt does not exist"),
        ("none.safetensors", "none.safetensors does not exist"),
        ("{tmp}/lost.safetensors", "lost.safetensors is not the model.safetensors of an exported folder"),
        ("{tmp}/run/ema.safetensors", "ema.safetensors is not the model.safetensors of an exported folder"),
        ("{tmp}", "neither a run's folder .* nor an exported backbone"),
    ],
)
def test_what_is_not_there_is_refused(name: str, sentence: str, run: Path, tmp_path: Path) -> None:
    exported = run / "backbone" / "model.safetensors"
    shutil.copy(exported, tmp_path / "lost.safetensors")  # without the config.json that says what it is
    shutil.copytree(exported.parent, tmp_path / "run")
    shutil.copy(exported, tmp_path / "run" / "ema.safetensors")
    with pytest.raises(UserError, match=sentence):
        resolve(name.format(tmp=tmp_path))


def test_an_argument_that_a_network_does_not_take() -> None:
    with pytest.raises(UserError, match="backbone resnet18 does not take window_size"):
        resolve("resnet18", window_size=3)


# The commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root / "images", train=2, val=1)
    write_davis(root / "davis", {"a": scene(3, (64, 64), num_objects=1)})
    return root


def by_eval(backbone: str, data: Path, out: Path) -> None:
    videomac.evaluate.davis(backbone, data=data / "davis", out=out, size="native", stride=16, videos=False)


def by_probe(backbone: str, data: Path, out: Path) -> None:
    videomac.probe(data=data / "images", backbone=backbone, out=out, image_size=32, workers=0, k=3)


def by_finetune(backbone: str, data: Path, out: Path) -> None:
    small = {"image_size": 32, "epochs": 1, "global_batch_size": 2, "workers": 0, "trainer": {"accelerator": "cpu"}}
    videomac.finetune(data=data / "images", backbone=backbone, out=out, **small)


def by_export(backbone: str, data: Path, out: Path) -> None:
    exporting.run(ExportConfig(Path(backbone), out))


COMMANDS = {"eval": by_eval, "probe": by_probe, "finetune": by_finetune, "export": by_export}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_opens_an_exported_file(
    command: Callable[[str, Path, Path], None], run: Path, data: Path, tmp_path: Path
) -> None:
    command(str(run / "backbone" / "model.safetensors"), data, tmp_path / "out")
    if command is by_export:
        written = load_file(tmp_path / "out" / "model.safetensors")
        assert same(resolve(run)[0], written)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_misses_a_folder_in_the_same_words(
    command: Callable[[str, Path, Path], None], data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^runs/none does not exist: check the path, or name a timm network$"):
        command("runs/none", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_weights_can_be_exported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="resnet18 is no folder or file: name a run's folder"):
        by_export("resnet18", tmp_path, tmp_path / "out")
    assert find_weights("resnet18") is None


def test_an_exported_file_is_not_overwritten_by_its_own_export(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the source itself"):
        ExportConfig(run / "backbone" / "model.safetensors", run / "backbone", overwrite=True)


@saved
def test_eval_and_probe_normalise_pixels_as_pre_training_did(run: Path, spelling: str) -> None:
    from videomac.classify.network import build_network

    name = spelling.format(run=run)
    probed = build_network(name, pretrained=None, which="online", image_size=32, seed=0)
    evaluated = FeatureExtractor(resolve(name)[0])
    assert probed.mean == tuple(evaluated.description["mean"]) == IMAGENET_MEAN
    plain = build_network(NAME, pretrained=None, which="online", image_size=32, seed=0)
    assert plain.mean == tuple(FeatureExtractor(resolve(NAME)[0]).description["mean"]) == (0.5, 0.5, 0.5)
