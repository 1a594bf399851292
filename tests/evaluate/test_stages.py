from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from videomac.evaluate.benchmarks import davis
from videomac.evaluate.config import EvalDavisConfig
from videomac.evaluate.features import FeatureExtractor
from videomac.evaluate.stages import SharedExtractor, share_a_pass
from videomac.evaluate.synthetic import scene, write_davis


@pytest.mark.parametrize(("name", "stages"), [("convnextv2_atto", (1, 2, 3)), ("resnet18", (2, 3))])
@pytest.mark.parametrize("dilate", [True, False])
def test_the_maps_of_one_pass_are_those_of_a_pass_each(name: str, stages: tuple[int, ...], dilate: bool) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model(name)
    extractors = [FeatureExtractor(backbone, stage=stage, stride=8, dilate=dilate) for stage in stages]
    assert share_a_pass(extractors)
    frames = torch.rand(2, 3, 72, 104)
    with torch.inference_mode():
        together = SharedExtractor(extractors)(frames)
        apart = [extractor(frames) for extractor in extractors]
    for found, expected in zip(together, apart, strict=True):
        assert torch.equal(found, expected)


def test_the_pass_runs_once() -> None:
    backbone = timm.create_model("resnet18")
    extractors = [FeatureExtractor(backbone, stage=stage, stride=8) for stage in (2, 3)]
    passes = []
    for extractor in extractors:
        extractor.register_forward_hook(lambda *_: passes.append(1))
    with torch.inference_mode():
        SharedExtractor(extractors)(torch.rand(1, 3, 64, 64))
    assert len(passes) == 1


def test_what_is_not_one_network_at_one_stride_shares_no_pass() -> None:
    first, second = timm.create_model("resnet18"), timm.create_model("convnextv2_atto")
    at = {stage: FeatureExtractor(first, stage=stage) for stage in (2, 3)}
    assert not share_a_pass([at[2], at[3]])  # their own strides
    one, other = FeatureExtractor(first, stage=2, stride=8), FeatureExtractor(second, stage=3, stride=8)
    assert not share_a_pass([one, other])
    assert not share_a_pass([one])
    with pytest.raises(ValueError, match="not of one network"):
        SharedExtractor([one, other])


def test_judging_two_stages_at_once_gives_what_judging_each_gives(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", {name: scene(5, (48, 72), seed=seed) for seed, name in enumerate(("a", "b"))})
    options = {"data": tmp_path / "davis", "backbone": "convnextv2_atto", "size": "64x96", "radius": 3, "videos": False}

    def config(stage: int, folder: str) -> EvalDavisConfig:
        return EvalDavisConfig(**options, out=tmp_path / f"{folder}{stage}", stage=stage)

    together = davis.run_stages([config(2, "together"), config(3, "together")])
    apart = [davis.run(config(2, "apart")), davis.run(config(3, "apart"))]
    assert together == apart
    assert together[0] != together[1]
    for stage in (2, 3):
        files = [(tmp_path / f"{kind}{stage}" / "metrics.csv").read_bytes() for kind in ("together", "apart")]
        assert files[0] == files[1]
        assert json.loads((tmp_path / f"together{stage}" / "metrics.json").read_text()) == together[stage - 2]


def test_a_sequence_that_one_stage_has_and_the_other_has_not_is_made_for_the_other(tmp_path: Path) -> None:
    write_davis(tmp_path / "davis", {name: scene(5, (48, 72), seed=seed) for seed, name in enumerate(("a", "b"))})
    options = {"data": tmp_path / "davis", "backbone": "convnextv2_atto", "size": "64x96", "radius": 3, "videos": False}
    configs = [EvalDavisConfig(**options, out=tmp_path / str(stage), stage=stage) for stage in (2, 3)]
    whole = davis.run_stages(configs)
    lost = sorted((tmp_path / "3" / "predictions").iterdir())[0]
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    again = [EvalDavisConfig(**options, out=tmp_path / str(stage), stage=stage, resume=True) for stage in (2, 3)]
    assert davis.run_stages(again) == whole
    assert len(list(lost.iterdir())) == 5
