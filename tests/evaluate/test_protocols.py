"""Protocols: presets, overrides, frame sizes."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import jhmdb
from videomac.evaluate.config import EvalDavisConfig, EvalJhmdbConfig, EvalVipConfig
from videomac.evaluate.images import read_ids
from videomac.evaluate.protocols import Benchmark, EvalProtocol, changes, frame_size, resolve


@pytest.mark.parametrize(
    ("rule", "frame", "size"),
    [
        ("native", (480, 854), (480, 854)),
        ("560x560", (1080, 1920), (560, 560)),
        ("480x880", (480, 854), (480, 880)),
        ("short480", (480, 854), (480, 854)),
        ("short480", (1080, 1920), (480, 853)),
        ("short480", (854, 480), (854, 480)),
        ("short480/64", (480, 854), (480, 832)),
        ("short480/64", (480, 910), (480, 896)),
        ("long880/64", (1080, 1920), (448, 880)),
        ("long880/64", (1920, 1080), (880, 448)),
        ("short320", (300, 300), (320, 320)),
    ],
)
def test_frame_sizes(rule: str, frame: tuple[int, int], size: tuple[int, int]) -> None:
    assert frame_size(rule, frame) == size


@pytest.mark.parametrize(
    ("name", "benchmark", "numbers"),
    [  # L, K, R, T, size
        ("crw", "davis", (20, 10, 12, 0.07, "native")),
        ("crw", "vip", (4, 10, 12, 0.07, "560x560")),
        ("crw", "jhmdb", (7, 10, 12, 0.07, "320x320")),
        ("dino", "davis", (7, 5, 12, 0.1, "short480/64")),
        ("cropmae", "davis", (20, 7, 20, 0.7, "480x880")),
        ("cropmae", "vip", (20, 10, 20, 0.7, "long880/64")),
        ("cropmae", "jhmdb", (20, 7, 20, 0.7, "320x320")),
        ("vfs", "davis", (20, 10, 12, 0.07, "short480")),
        ("vfs", "vip", (20, 10, 16, 0.07, "560x560")),
        ("vfs", "jhmdb", (20, 10, 5, 0.07, "320x320")),
    ],
)
def test_presets_are_the_published_numbers(name: str, benchmark: str, numbers: tuple[object, ...]) -> None:
    p = resolve(name, benchmark)
    assert (p.context_frames, p.topk, p.radius, p.temperature, p.size) == numbers


def test_presets_differ_where_the_codes_do() -> None:
    switches = {
        name: (
            p.window,
            p.first_frame_window,
            p.early_context,
            p.ties,
            p.label_resize,
            p.class_normalization,
            p.first_frame,
        )
        for name in ("crw", "dino", "cropmae", "vfs")
        for p in [resolve(name, "davis")]
    }
    assert switches == {
        "crw": ("disc", False, "padded", "exact", "bilinear", False, "resampled"),
        "dino": ("square", True, "unique", "all", "nearest", True, "truth"),
        "cropmae": ("disc", False, "padded", "exact", "bilinear", False, "resampled"),
        "vfs": ("disc", True, "repeated", "exact", "nearest", True, "truth"),
    }
    assert resolve("crw", "jhmdb").joint_topk == 3 and resolve("vfs", "jhmdb").joint_drawing == "image"
    assert resolve("vfs", "jhmdb").score_first_frame and not resolve("crw", "jhmdb").score_first_frame
    assert resolve("dino", "davis").normalization == "dino"


def test_single_settings_replace_the_presets_and_are_named() -> None:
    protocol = resolve("crw", "davis", {"topk": 5, "stride": None, "radius": 0})
    assert protocol.topk == 5 and protocol.stride == 8
    assert changes(protocol, "davis") == {"topk": 5, "radius": 0}
    config = EvalDavisConfig(data=".", backbone="raw-pixels", out="x", protocol="dino", temperature=0.5)
    assert config.resolved == resolve("dino", "davis", {"temperature": 0.5})


def test_every_setting_is_an_option_of_some_command() -> None:
    options = {f.name for config in (EvalDavisConfig, EvalVipConfig, EvalJhmdbConfig) for f in fields(config)}
    assert {field.name for field in fields(EvalProtocol)} - {"name"} <= options


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"topk": 0}, "topk must be at least 1, but is 0"),
        ({"radius": -1}, "radius must be at least 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"stride": 0}, "stride must be at least 1 or native"),
        ({"size": "480p"}, "size must be native, HxW"),
        ({"size": "short10/64"}, "use a larger one"),
        ({"protocol": "crow"}, "protocol must be one of videomac, crw, dino, cropmae, vfs, but is 'crow'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"resume": True, "overwrite": True}, "exclude each other"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        EvalDavisConfig(data=".", backbone="raw-pixels", out="x", **settings)
    with pytest.raises(UserError, match="unknown setting 'windo'"):
        resolve("crw", "davis", {"windo": "disc"})
    with pytest.raises(UserError, match="unknown protocol 'crow': choose one of videomac, crw"):
        resolve("crow", "davis")


NAMES = ("videomac", "crw", "dino", "cropmae", "vfs")
BENCHMARKS = ("davis", "vip", "jhmdb")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_no_two_presets_are_alike(benchmark: Benchmark) -> None:
    for one, other in itertools.combinations(NAMES, 2):
        assert asdict(resolve(one, benchmark)) | {"name": other} != asdict(resolve(other, benchmark)), (one, other)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """What every preset leaves on every benchmark, of one scene, for colours that a textured scene confuses."""
    root = tmp_path_factory.mktemp("protocols")
    scenes = {"a": synthetic.scene(6, (64, 96), num_objects=2)}
    data = {
        "davis": synthetic.write_davis(root / "davis", scenes),
        "vip": synthetic.write_vip(root / "vip", scenes),
        "jhmdb": synthetic.write_jhmdb(root / "jhmdb", {"c/a": scenes["a"]}),
    }
    outs = {}
    for benchmark, name in itertools.product(BENCHMARKS, NAMES):
        outs[benchmark, name] = root / f"{benchmark}-{name}"
        settings = {"protocol": name, "stride": 4, "size": "64x96", "videos": False}
        getattr(evaluate, benchmark)("raw-pixels", data=data[benchmark], out=outs[benchmark, name], **settings)
    return outs


def predicted(benchmark: str, out: Path) -> np.ndarray:
    """Everything that was predicted after frame 0."""
    predictions = out / "predictions"
    if benchmark == "jhmdb":
        return jhmdb.read_joints(predictions / "c" / "a" / "joint_positions.mat")[1:]
    return np.stack([read_ids(path) for path in sorted((predictions / "a").iterdir())[1:]])


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_preset_runs_and_predicts_something_of_its_own(
    evaluations: dict[tuple[str, str], Path], benchmark: str
) -> None:
    runs = {name: evaluations[benchmark, name] for name in NAMES}
    for name, out in runs.items():
        stored = yaml.safe_load((out / "config.yaml").read_text())
        expected = asdict(resolve(name, benchmark, {"stride": 4, "size": "64x96"}))  # type: ignore[arg-type]
        del expected["name"]
        assert {key: stored[key] for key in expected} == expected and stored["protocol"] == name
        assert stored["changed_settings"] == ["size", "stride"]
        assert stored["features"]["stride"] == 4 and stored["features"]["channels"] == 48
        numbers = json.loads((out / "metrics.json").read_text())
        first = {"davis": "J&F-Mean", "vip": "mIoU", "jhmdb": "PCK@0.5"}[benchmark]
        assert 0 < numbers[first] <= 1 and (numbers[first] < 1 or benchmark == "jhmdb")
    for one, other in itertools.combinations(NAMES, 2):
        assert not np.array_equal(predicted(benchmark, runs[one]), predicted(benchmark, runs[other])), (one, other)


def test_first_frames_are_the_truth_or_were_brought_to_the_grid_and_back(
    evaluations: dict[tuple[str, str], Path],
) -> None:
    truth = synthetic.scene(6, (64, 96), num_objects=2).objects[0]
    for name in NAMES:
        first = read_ids(evaluations["davis", name] / "predictions" / "a" / "00000.png")
        assert np.array_equal(first, truth) == (name in ("videomac", "dino", "vfs")), name


def test_the_options_are_known_without_importing_torch() -> None:
    code = "import sys, videomac.evaluate.config; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
