"""VIP: perfect features score 1, and one sentence for every mistake in the data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.benchmarks.complaints import complaint
from tests.evaluate.networks import QUICK, PerfectFeatures
from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import vip as _vip
from videomac.evaluate.config import ScoreVipConfig
from videomac.evaluate.images import write_ids


def test_perfect_features_score_1_on_vip(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    root = synthetic.write_vip(tmp_path / "vip", flat, suffix=".png")
    numbers = evaluate.vip(PerfectFeatures(2), data=root, out=tmp_path / "out", **QUICK)
    assert numbers == {"mIoU": 1.0}
    predictions = tmp_path / "out" / "predictions" / "two"
    truth = root / "Annotations" / "Category_ids" / "two"
    assert [path.name for path in sorted(predictions.iterdir())] == [path.name for path in sorted(truth.iterdir())]


def test_score_of_what_eval_predicted_is_the_same(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    vip = synthetic.write_vip(tmp_path / "v", flat)
    numbers = evaluate.vip("raw-pixels", data=vip, out=tmp_path / "2", stride=8, **QUICK)
    assert _vip.score_predictions(ScoreVipConfig(data=vip, predictions=tmp_path / "2" / "predictions")) == numbers


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def vip(tmp_path: Path) -> Path:
    return synthetic.write_vip(tmp_path / "vip", {"videos1": synthetic.scene(3, (48, 80))})


def test_wrong_root_folder(vip: Path, tmp_path: Path) -> None:
    said = complaint("vip", vip.parent, tmp_path)
    assert re.search(r"not in VIP layout: expected .*Annotations/Category_ids, found (out, )?vip$", said)


def test_missing_frames(vip: Path, tmp_path: Path) -> None:
    next((vip / "Images" / "videos1").iterdir()).unlink()
    assert "is missing" in complaint("vip", vip, tmp_path)


def test_first_masks(vip: Path, tmp_path: Path) -> None:
    first = _vip.find(vip, "auto", None)[0].masks[0]
    write_ids(first, np.ones((30, 40), dtype=np.uint8))
    assert "is 40x30 pixels but its frame is 80x48" in complaint("vip", vip, tmp_path)
    write_ids(first, np.zeros((48, 80), dtype=np.uint8))
    assert "is an empty mask: the first frame" in complaint("vip", vip, tmp_path)


def test_predictions(vip: Path, tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(UserError) as caught:
            _vip.score_predictions(config)
        return str(caught.value)

    predictions = Path(shutil.copytree(vip / "Annotations" / "Category_ids", tmp_path / "p"))
    config = ScoreVipConfig(data=vip, predictions=predictions)
    assert _vip.score_predictions(config) == {"mIoU": 1.0}
    path = sorted((predictions / "videos1").iterdir())[0]
    write_ids(path, np.full((48, 80), 20, dtype=np.uint8))
    assert "has class 20: VIP's classes are 0 (background) to 19" in said()
    path.unlink()
    assert "every annotated frame is scored, the first included" in said()


def test_names_of_a_split_lead_nowhere(vip: Path, tmp_path: Path) -> None:
    for name in ("../v", "/etc", "..", "a/b"):
        (vip / "lists" / "val_videos.txt").write_text(name)
        assert "is not a plain name" in complaint("vip", vip, tmp_path)
