"""JHMDB: perfect features score 1, a real video, and one sentence for every mistake in the data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.evaluate.benchmarks.complaints import complaint
from tests.evaluate.networks import QUICK, SharpColours
from videomac import evaluate
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.evaluate.benchmarks import jhmdb as _jhmdb
from videomac.evaluate.config import ScoreJhmdbConfig


def test_perfect_features_score_1_on_jhmdb(tmp_path: Path) -> None:
    scenes = {
        "run/one": synthetic.scene(5, (48, 64), num_objects=1),
        "jump/two": synthetic.scene(4, (48, 64), 1, seed=2),
    }
    for video in scenes.values():  # what comes out from behind the figure must be known too
        video.frames[video.objects == 0] = 0
    root = synthetic.write_jhmdb(tmp_path / "jhmdb", scenes)
    settings = {**QUICK, "topk": 1, "joint_topk": 1}
    numbers = evaluate.jhmdb(SharpColours(), data=root, out=tmp_path / "out", **settings)
    assert numbers == {f"PCK@0.{tenth}": 1.0 for tenth in range(1, 6)}
    joints = _jhmdb.read_joints(tmp_path / "out" / "predictions" / "run" / "one" / "joint_positions.mat")
    np.testing.assert_allclose(joints[1:], scenes["run/one"].joints[1:], atol=1e-9)


def test_score_of_what_eval_predicted_is_the_same(tmp_path: Path, flat: dict[str, synthetic.Scene]) -> None:
    jhmdb = synthetic.write_jhmdb(tmp_path / "j", {f"c/{name}": scene for name, scene in flat.items()})
    numbers = evaluate.jhmdb("raw-pixels", data=jhmdb, out=tmp_path / "3", stride=8, **QUICK)
    scored = ScoreJhmdbConfig(data=jhmdb, predictions=tmp_path / "3" / "predictions")
    assert _jhmdb.score_predictions(scored) == numbers


def test_a_real_jhmdb_video(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "jhmdb-sample"
    videos = _jhmdb.find(root, "auto", None)
    assert [video.name for video in videos] == ["catch/Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2"]
    assert videos[0].joints.shape == (40, 15, 2) and videos[0].joints[0, 0].tolist() == [285.5, 105.5]
    assert len(_jhmdb.frames_of(root, videos[0])) == 40
    _jhmdb.write_joints(tmp_path / videos[0].name / "joint_positions.mat", videos[0].joints)
    numbers = _jhmdb.score_predictions(ScoreJhmdbConfig(data=root, predictions=tmp_path))
    assert set(numbers.values()) == {1.0}


# Bad input ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def jhmdb(tmp_path: Path) -> Path:
    return synthetic.write_jhmdb(tmp_path / "jhmdb", {"run/one": synthetic.scene(3, (48, 80))})


def test_wrong_root_folder(jhmdb: Path, tmp_path: Path) -> None:
    said = complaint("jhmdb", jhmdb.parent, tmp_path)
    assert re.search(r"not in JHMDB layout: expected .*joint_positions, found jhmdb(, out)?$", said)
    assert "--split may be 1, 2, 3 or all" in complaint("jhmdb", jhmdb, tmp_path, split="9")


def test_frames(jhmdb: Path, tmp_path: Path) -> None:
    frames = jhmdb / "Rename_Images" / "run" / "one"
    Image.new("RGB", (40, 30)).save(frames / "00003.png")
    assert "00003.png is 40x30 pixels" in complaint("jhmdb", jhmdb, tmp_path)
    (frames / "00002.png").unlink()
    assert "frame 00002 of video run/one is missing" in complaint("jhmdb", jhmdb, tmp_path)
    (frames / "00003.png").unlink()
    assert "sequence run/one has 1 frame(s)" in complaint("jhmdb", jhmdb, tmp_path)


def test_mat_files(jhmdb: Path, tmp_path: Path) -> None:
    mat = jhmdb / "joint_positions" / "run" / "one" / "joint_positions.mat"
    scipy.io.savemat(mat, {"pos_world": np.zeros((2, 15, 3))})
    assert "has no pos_img, the joints in pixels (found pos_world)" in complaint("jhmdb", jhmdb, tmp_path)
    scipy.io.savemat(mat, {"pos_img": np.zeros((2, 13, 3))})
    assert "is (2, 13, 3), but must be (2, 15, frames)" in complaint("jhmdb", jhmdb, tmp_path)
    mat.write_bytes(b"not matlab" * 50)
    assert "is not a readable .mat file" in complaint("jhmdb", jhmdb, tmp_path)
    mat.unlink()
    assert "does not exist" in complaint("jhmdb", jhmdb, tmp_path)


def test_predictions(jhmdb: Path, tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(UserError) as caught:
            _jhmdb.score_predictions(config)
        return str(caught.value)

    config = ScoreJhmdbConfig(data=jhmdb, predictions=Path(shutil.copytree(jhmdb / "joint_positions", tmp_path / "q")))
    assert _jhmdb.score_predictions(config)["PCK@0.1"] == 1
    mat = config.predictions / "run" / "one" / "joint_positions.mat"
    _jhmdb.write_joints(mat, np.zeros((7, 15, 2)))
    assert "has 7 frames but the truth has 3" in said()
    mat.unlink()
    assert "is missing: every video of the split is scored" in said()


def test_names_of_a_split_lead_nowhere(jhmdb: Path, tmp_path: Path) -> None:
    (split,) = (jhmdb / "splits").glob("*_test_split1.txt")
    for name in ("../../../victim.avi", "/etc/passwd.avi", "...avi", "a/b.avi"):
        split.write_text(f"{name} 2\n")
        assert "is not a plain name (NAME/NAME)" in complaint("jhmdb", jhmdb, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"pos_img": "text"},
        {"pos_img": np.array([[1, "a"]], dtype=object)},
        {"pos_img": {"a": 1.0}},
        {"pos_img": np.zeros((2, 15, 3, 4))},
        {"pos_img": np.zeros((2, 15, 0))},
        {"pos_img": np.zeros(())},
        {"pos_img": np.full((2, 15, 3), np.nan)},
        {"pos_img": np.full((2, 15, 3), np.inf)},
        {"pos_img": np.zeros((2, 15, 3), dtype=complex)},
    ],
)
def test_joints_that_are_none_are_one_sentence(tmp_path: Path, content: dict[str, object]) -> None:
    scipy.io.savemat(tmp_path / "joint_positions.mat", content)
    with pytest.raises(UserError, match="pos_img"):
        _jhmdb.read_joints(tmp_path / "joint_positions.mat")


def test_a_damaged_mat_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "joint_positions.mat"
    _jhmdb.write_joints(path, np.ones((4, 15, 2)))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(content[: rng.integers(len(whole))] if rng.random() < 0.5 else content)
        try:
            assert _jhmdb.read_joints(path).shape[1:] == (15, 2)
        except UserError as error:
            assert str(path) in str(error)
