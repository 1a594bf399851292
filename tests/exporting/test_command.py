"""`videomac export`: every format equals the network, and every tensor of the source is accounted for."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import Conv2dSame

from videomac import cli
from videomac.errors import UserError
from videomac.exporting.command import run
from videomac.exporting.config import ExportConfig
from videomac.exporting.formats import WholeNumberConv2dSame
from videomac.exporting.source import read_source, tensor_names, without_stage_norms
from videomac.models.checkpoint import load_backbone
from videomac.models.videomac import VideoMAC
from videomac.utils.io import read_torch

FRAMES = torch.linspace(-2, 2, 2 * 3 * 64 * 96).view(2, 3, 64, 96)
SMALL = {"depths": [1, 1, 0, 1], "dims": [4, 8, 12, 16]}
GOLDEN = "official-golden/{}/mac-checkpoint.pth"


def save_run(folder: Path, backbone: str = "convnextv2_tiny", **settings: Any) -> Path:
    """A run's folder with one checkpoint whose weights are far from their initial values."""
    torch.manual_seed(0)
    model = VideoMAC(backbone, decoder_width=8, **settings)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    (folder / "checkpoints").mkdir(parents=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save(
        {
            "state_dict": state,
            "videomac": {**model.arguments, "image_size": [64, 96]},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}}],
        },
        folder / "checkpoints" / "last.ckpt",
    )
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("source") / "run", backbone_args=SMALL)


def opened(folder: Path, format: str) -> Any:
    """Frames -> features, by nothing but the tool that the format is for."""
    if format == "timm":
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval().forward_features
    if format == "state_dict":
        network = timm.create_model("convnextv2_tiny", num_classes=0, **SMALL).eval()
        network.load_state_dict(torch.load(folder / "state_dict.pth", weights_only=True), strict=True)
        return network.forward_features
    if format == "torch_export":
        return torch.export.load(folder / "model.pt2").module()
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    return lambda frames: torch.from_numpy(session.run(["features"], {"frames": frames.numpy()})[0])


@pytest.mark.parametrize("which", ["online", "target"])
@pytest.mark.parametrize("format", ["timm", "state_dict"])
def test_weights_open_as_timm_has_them(source: Path, format: str, which: str, tmp_path: Path) -> None:
    run(ExportConfig(source, tmp_path, format, which))
    with torch.no_grad():
        expected = load_backbone(source, which).forward_features(FRAMES)
        torch.testing.assert_close(opened(tmp_path, format)(FRAMES), expected, rtol=0, atol=0)


@pytest.mark.parametrize("format", ["onnx", "torch_export"])
def test_graphs_take_any_batch_and_size(source: Path, format: str, tmp_path: Path) -> None:
    report = run(ExportConfig(source, tmp_path, format))
    features, network = opened(tmp_path, format), load_backbone(source)
    for size in ((1, 3, 64, 96), (4, 3, 160, 64), (2, 3, 75, 133)):  # none of them the traced one
        frames = torch.randn(size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = network.forward_features(frames)
        assert (features(frames) - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert report["largest_relative_difference"] <= 1e-4
    left_out = report["left_out"]["not used by the features (classifier's side)"]
    assert left_out["names"] == [
        f"state_dict.model.online.encoder.backbone.head.norm.{kind}" for kind in ("weight", "bias")
    ]


def test_a_graph_of_a_finer_stride_takes_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its convolution of an even kernel and no stride is padded on one side, which timm reckons with a float."""
    folder = save_run(tmp_path / "run", backbone_args=SMALL, output_stride=16)
    run(ExportConfig(folder, tmp_path / "out", "torch_export"))
    said = "convnextv2_tiny, depths=[1, 1, 0, 1], dims=[4, 8, 12, 16], output_stride=16"
    assert said in capsys.readouterr().out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "no classifier. Built with `depths=[1, 1, 0, 1]`, `dims=[4, 8, 12, 16]`, `output_stride=16`.\n\n## " in card
    frames = torch.randn((2, 3, 75, 133), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = load_backbone(folder).forward_features(frames)
    assert expected.shape[-2:] == (4, 8)
    torch.testing.assert_close(opened(tmp_path / "out", "torch_export")(frames), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(2, 1, 1), (2, 1, 2), (3, 2, 1), (5, 2, 1), (2, 2, 1)])
def test_padding_in_whole_numbers_is_timms(kernel: int, stride: int, dilation: int) -> None:
    theirs = Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation)
    ours = copy.deepcopy(theirs)
    ours.__class__ = WholeNumberConv2dSame
    for size in ((7, 8), (16, 9), (1, 2)):
        frames = torch.randn(2, 3, *size)
        torch.testing.assert_close(ours(frames), theirs(frames), rtol=0, atol=0)


def test_graphs_keep_the_stage_norms(tmp_path: Path) -> None:
    read = read_source(save_run(tmp_path / "run", backbone_args=SMALL, preset="official"), "online")
    assert not any("stage norms" in reason for reason in read.left_out) and "stage_norms.0.weight" in read.origin
    assert any("stage norms" in reason for reason in without_stage_norms(read).left_out)


@pytest.mark.parametrize("format", ["timm", "state_dict"])
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_every_tensor_of_the_source_is_reported_once(format: str, preset: str, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", backbone_args=SMALL, preset=preset)
    report = run(ExportConfig(folder, tmp_path / "out", format))
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    everything = [f"state_dict.{name}" for name in checkpoint["state_dict"]]
    everything += ["optimizer_states.0.state.0.exp_avg", "optimizer_states.0.state.0.step"]
    reported = list(report["exported"]["names"].values())
    for part in report["left_out"].values():
        assert part["count"] == len(part["names"])
        reported += part["names"]
    assert sorted(reported) == sorted(everything)
    for name, path in report["exported"]["names"].items():
        assert path == f"state_dict.model.online.encoder.backbone.{name}"
    norms = [reason for reason in report["left_out"] if "stage norms" in reason]
    assert len(norms) == (preset == "official")
    assert report["left_out"]["target network"]["count"] == sum("model.target." in name for name in everything)
    assert report["left_out"]["mask token"]["names"] == ["state_dict.model.online.decoder.mask_token"]
    assert report["initial_values"] == []
    if format == "timm":
        assert report["untrained"] == ["head.norm.weight", "head.norm.bias"]
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == report


@pytest.mark.parametrize("kind", ["convnextv2", "resnet_bottleneck"])
def test_the_authors_checkpoints_are_accounted_for(kind: str, shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / GOLDEN.format(kind)
    report = run(ExportConfig(file, tmp_path))
    checkpoint = read_torch(file)
    everything = set(tensor_names(checkpoint))
    reported = [*report["exported"]["names"].values(), *(n for p in report["left_out"].values() for n in p["names"])]
    assert len(reported) == len(set(reported)) and set(reported) == everything
    weights = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    for name, path in report["exported"]["names"].items():
        section, _, key = path.partition(".")
        assert weights[name].numel() == checkpoint[section][key].numel()
        assert weights[name].double().sum().item() == pytest.approx(checkpoint[section][key].double().sum().item())


def test_an_export_can_be_exported_on(source: Path, tmp_path: Path) -> None:
    run(ExportConfig(source, tmp_path / "timm"))
    report = run(ExportConfig(tmp_path / "timm", tmp_path / "plain", "state_dict"))
    assert report["kind"] == "export" and not report["left_out"]
    torch.testing.assert_close(
        opened(tmp_path / "plain", "state_dict")(FRAMES), load_backbone(source).forward_features(FRAMES), rtol=0, atol=0
    )


# The model card -------------------------------------------------------------------------------------------------------


def test_the_card_states_data_schedule_losses_and_evaluation(small_run: Path, clips: Path, tmp_path: Path) -> None:
    import videomac
    from videomac.evaluate.synthetic import scene, write_davis

    davis = write_davis(tmp_path / "davis", {"one": scene(3, (64, 96))})
    numbers = videomac.evaluate.davis(small_run, data=davis, out=tmp_path / "eval", size="64x96", stride=16)
    config = ExportConfig(small_run, tmp_path / "out", evaluations=[tmp_path / "eval"])
    run(config)
    card = (tmp_path / "out" / "README.md").read_text()
    metrics = json.loads((small_run / "metrics.json").read_text())
    for stated in (
        f"`{clips.name}`: {metrics['videos']} videos",
        f"| length | 2 epochs ({metrics['steps']} steps) |",
        "| pairs per step | 16 |",
        "peak 0.005 (0.08 per 256 pairs)",
        "online + target + 0.5 x consistency",
        f"| consistency loss | {metrics['consistency_loss']:.4f} |",
        f"| held out loss | {metrics['held_out_loss']:.4f} |",
        f"J&F-Mean {100 * numbers['J&F-Mean']:.1f}",
        "protocol videomac*",
        "temperature = 0.1",
        "Not stated. Whoever publishes these weights chooses one",
    ):
        assert stated in card, stated
    report = (tmp_path / "out" / "export.json").read_text()
    for folder in (tmp_path, small_run.parent, clips.parent):
        assert str(folder) not in card and str(folder) not in report, "paths of one machine stay at home"
    # the exported folder within the run knows its run too
    run(ExportConfig(small_run / "backbone", tmp_path / "again"))
    assert "| length | 2 epochs (" in (tmp_path / "again" / "README.md").read_text()


def test_a_card_without_a_run_says_so(source: Path, tmp_path: Path) -> None:
    run(ExportConfig(source, tmp_path))
    card = (tmp_path / "README.md").read_text()
    assert "Not known: the weights were exported without the folder of their run." in card
    assert "None was given." in card and "license:" not in card.split("---")[1]


# The hub --------------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as an upload of small files needs; keeps what it is sent."""

    received: dict[str, bytes]
    refuses: bool

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refuses:
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self.answer(200, {"url": f"http://{self.headers['Host']}/someone/{json.loads(body)['name']}"})
        if self.path.startswith("/api/validate-yaml"):
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.received[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self.answer(
                200,
                {
                    "commitUrl": f"http://{self.headers['Host']}/someone/mine/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                    "success": True,
                },
            )
        self.answer(404, {"error": f"not part of the stand-in: {self.path}"})

    def do_GET(self) -> None:
        self.answer(200, {"id": "someone/mine", "sha": "0" * 40, "siblings": []})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A stand-in for the hub on this machine, which huggingface_hub takes for the real one."""
    handler = type("TestHub", (Hub,), {"received": {}, "refuses": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_export_is_pushed_to_the_hub(source: Path, tmp_path: Path, hub: type[Hub], capsys: Any) -> None:
    run(ExportConfig(source, tmp_path / "out", push_to_hub="someone/mine"))
    assert sorted(hub.received) == ["README.md", "config.json", "export.json", "model.safetensors"], "no config.yaml"
    for name, content in hub.received.items():
        assert content == (tmp_path / "out" / name).read_bytes()
    assert "someone/mine" in capsys.readouterr().out
    # what arrived opens in timm
    for name, content in hub.received.items():
        (tmp_path / "arrived").mkdir(exist_ok=True)
        (tmp_path / "arrived" / name).write_bytes(content)
    expected = load_backbone(source).forward_features(FRAMES)
    torch.testing.assert_close(opened(tmp_path / "arrived", "timm")(FRAMES), expected, rtol=0, atol=0)


def test_a_hub_that_refuses_leaves_the_export_and_one_sentence(
    source: Path, tmp_path: Path, hub: type[Hub], capsys: Any
) -> None:
    hub.refuses = True
    error = refused(capsys, source, "--out", tmp_path / "out", "--push_to_hub", "someone/mine")
    assert "could not push to someone/mine (" in error and "401" in error and "hf auth login" in error
    assert (tmp_path / "out" / "model.safetensors").exists()


# Bad input ------------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", *map(str, arguments)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("videomac: error: ") and error.count("\n") == 1
    return error


def test_weights_of_another_architecture_name_the_first_keys(source: Path, tmp_path: Path, capsys: Any) -> None:
    run(ExportConfig(source, tmp_path / "timm"))
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    (tmp_path / "timm" / "config.json").write_text(json.dumps({**config, "architecture": "resnet18", "model_args": {}}))
    error = refused(capsys, tmp_path / "timm", "--out", tmp_path / "out")
    assert "conv1.weight is missing" in error and "resnet18" in error
    assert not (tmp_path / "out").exists()


def test_a_pickle_with_code_is_refused_with_the_reason(tmp_path: Path, capsys: Any) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (print, ("this code ran",))

    torch.save({"state_dict": {}, "videomac": Code()}, tmp_path / "evil.ckpt", pickle_module=pickle)
    error = refused(capsys, tmp_path / "evil.ckpt", "--out", tmp_path / "out")
    assert "could run code" in error and "print" in error and "this code ran" not in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--out", "out"], "nowhere is no folder or file"),
        (["run", "--out", "run"], "is the source itself"),
        (["run"], "missing --out"),
        (["run", "--out", "used"], "already holds a run (README.md)"),
        (["run", "--out", "out", "--evaluations", "run"], "holds no run (no config.yaml)"),
        (["run", "--out", "out", "--format", "tensorrt"], "format must be one of timm, state_dict, onnx, torch_export"),
        (["empty", "--out", "out"], "neither a run's folder"),
    ],
)
def test_bad_input_is_one_sentence(
    source: Path, tmp_path: Path, arguments: list[str], sentence: str, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(source)
    for folder in ("used", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "used" / "README.md").touch()
    assert sentence in refused(capsys, *arguments)


@pytest.mark.parametrize("format", ["timm", "state_dict", "onnx", "torch_export"])
def test_weights_that_are_not_finite_are_not_exported(format: str, tmp_path: Path) -> None:
    folder = save_run(tmp_path / "run", "convnext_atto", backbone_args=SMALL)
    state = read_torch(folder / "checkpoints" / "last.ckpt")
    next(value for key, value in state["state_dict"].items() if "stages" in key)[0] = float("nan")
    torch.save(state, folder / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="is not finite"):
        run(ExportConfig(folder, tmp_path / "out", format=format))
    assert not [path for path in tmp_path.glob("out/*") if path.suffix in (".safetensors", ".pth", ".onnx", ".pt2")]


def test_a_missing_package_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx, onnxscript, onnxruntime: pip install '\.\[export\]' in "):
        run(ExportConfig(source, tmp_path / "out", "onnx"))


def test_a_file_that_computes_something_else_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_backbone(source, "target")

    def open_another(name: str, *arguments: Any, create: Any = timm.create_model, **options: Any) -> Any:
        return other if name.startswith("local-dir:") else create(name, *arguments, **options)

    monkeypatch.setattr(timm, "create_model", open_another)
    with pytest.raises(UserError, match=r"model\.safetensors gives features that differ by"):
        run(ExportConfig(source, tmp_path))
