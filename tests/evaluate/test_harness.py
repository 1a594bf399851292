"""What the three evaluations share: the out folder, resuming, batches of features, precision, the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluate.benchmarks.complaints import complaint
from tests.evaluate.networks import QUICK, PerfectFeatures
from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import masks, synthetic
from videomac.evaluate.images import PALETTE, read_ids


def test_what_an_evaluation_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = synthetic.write_davis(
        tmp_path / "davis", {"a": synthetic.scene(4, (64, 96)), "b": synthetic.scene(5, (64, 96), 1)}
    )
    out = tmp_path / "out"
    numbers = evaluate.davis("raw-pixels", data=root, out=out, radius=5, size="native")
    printed = capsys.readouterr().out
    for word in (
        "protocol videomac with size, radius changed",
        "radius=5",
        "grid stride 8",
        "192 channels",
        "temperature=",
    ):
        assert word in printed
    assert (out / "global_results-val.csv").read_text().splitlines() == [
        "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay",
        ",".join(f"{numbers[key]:.3f}" for key in "J&F-Mean J-Mean J-Recall J-Decay F-Mean F-Recall F-Decay".split()),
    ]
    lines = (out / "per-sequence_results-val.csv").read_text().splitlines()
    assert lines[0] == "Sequence,J-Mean,F-Mean" and [line.split(",")[0] for line in lines[1:]] == ["a_1", "a_2", "b_1"]
    assert len((out / "metrics.csv").read_text().splitlines()) == 4
    picture = Image.open(out / "predictions" / "a" / "00002.png")
    assert picture.mode == "P" and picture.size == (96, 64)
    assert picture.getpalette()[:12] == PALETTE[:4].flatten().tolist() == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert np.array_equal(read_ids(out / "predictions" / "a" / "00000.png"), synthetic.scene(4, (64, 96)).objects[0])
    for name in ("overlays/a.mp4", "overlays/b.mp4", "sheets/a.png", "sheets/b.png", "config.yaml"):
        assert (out / name).stat().st_size > 100


def test_an_interrupted_evaluation_continues_with_the_next_sequence(
    davis_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = evaluate.davis("raw-pixels", data=davis_root, out=tmp_path / "whole", stride=8, **QUICK)
    out = tmp_path / "broken"
    calls: list[str] = []
    original = masks.masks_of

    def interrupted(evaluations: list[Any], frames: list[Path], first: Any) -> Any:
        calls.append(frames[0].parent.name)

        def broken(stream: Any) -> Any:
            for time, ids in enumerate(stream):
                if len(calls) == 2 and time == 2:
                    raise KeyboardInterrupt
                yield ids

        return [broken(stream) for stream in original(evaluations, frames, first)]

    monkeypatch.setattr(masks, "masks_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, **QUICK)
    with pytest.raises(UserError, match="already holds a run"):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, **QUICK)
    with pytest.raises(UserError, match=r"cannot resume .* with other settings: changed_settings, temperature differ"):
        evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, resume=True, temperature=1.0, **QUICK)
    with pytest.raises(UserError, match="no evaluation to resume"):
        evaluate.davis("raw-pixels", data=davis_root, out=tmp_path / "new", stride=8, resume=True, **QUICK)
    assert evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, resume=True, **QUICK) == whole
    assert calls == ["two", "one", "one"]
    assert "1 of 2 sequences are done already" in capsys.readouterr().out
    evaluate.davis("raw-pixels", data=davis_root, out=out, stride=8, overwrite=True, **QUICK)
    assert calls[3:] == ["two", "one"]


def test_features_are_computed_once_a_frame_in_batches(davis_root: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Counting(PerfectFeatures):
        def forward(self, frames: Tensor) -> Tensor:
            if frames.shape[-2:] == (48, 80):
                seen.append(len(frames))
            return super().forward(frames)

    evaluate.davis(Counting(2), data=davis_root, out=tmp_path / "o", batch_size=4, sequences=["two"], **QUICK)
    assert seen == [4, 2]


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)],
)
def test_the_network_computes_in_the_precision_that_is_asked_for(
    precision: str, dtype: torch.dtype, davis_root: Path, tmp_path: Path
) -> None:
    seen: list[torch.dtype] = []

    class Recording(torch.nn.Conv2d):
        def forward(self, frames: Tensor) -> Tensor:
            features = super().forward(frames)
            if frames.shape[-2:] == (48, 80):  # one of the sequence, not one that finds out the stride
                seen.append(features.dtype)
            return features

    network = Recording(3, 8, kernel_size=8, stride=8)
    evaluate.davis(network, data=davis_root, out=tmp_path / "o", precision=precision, sequences=["two"], **QUICK)
    assert seen == [dtype]


def test_bfloat16_features_give_nearly_the_same(tmp_path: Path) -> None:
    root = synthetic.write_davis(tmp_path / "davis", {"a": synthetic.scene(4, (64, 96))})
    settings = {**QUICK, "data": root, "stage": 2, "stride": 4}
    single = evaluate.davis("resnet18", out=tmp_path / "32", **settings)
    half = evaluate.davis("resnet18", out=tmp_path / "16", precision="bf16-mixed", **settings)
    assert half["J&F-Mean"] == pytest.approx(single["J&F-Mean"], abs=0.1)


def test_devices_and_backbones(davis_root: Path, tmp_path: Path) -> None:
    assert "device 'cudda' cannot be used" in complaint("davis", davis_root, tmp_path, device="cudda")
    with pytest.raises(UserError, match="unknown backbone 'resnet81'"):
        evaluate.davis("resnet81", data=davis_root, out=tmp_path / "out")
