import importlib.metadata
import json

import pytest

from videomac.demo import command as demo
from videomac.demo.config import DemoConfig
from videomac.errors import UserError


def test_the_clips_come_from_the_installed_distribution():
    clips = demo.find_clips()
    assert [clip.name for clip in clips] == ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"]
    assert all(clip.is_file() for clip in clips)


def test_without_the_clips_the_cure_is_told(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(UserError, match=r"pip install '\.\[demo\]' in the checkout"):
        demo.find_clips()


@pytest.mark.parametrize(("loss", "trained", "fails"), [(0.8, 50.0, False), (0.95, 50.0, True), (0.8, 40.0, True)])
def test_it_fails_unless_the_network_learned_to_fill_in_and_to_label(
    tmp_path, monkeypatch, capsys, loss, trained, fails
):
    monkeypatch.setattr(demo, "pretrain", lambda config: {"held_out_loss": loss, "held_out_zero_loss": 1.0})
    scores = {"trained": trained, "random weights": 40.0, "raw pixels": 41.0}
    monkeypatch.setattr(demo, "label_clip", lambda *arguments, seed: scores)
    if fails:
        with pytest.raises(SystemExit, match="the demo failed"):
            demo.demo(DemoConfig(tmp_path / "demo"))
    else:
        demo.demo(DemoConfig(tmp_path / "demo"))
    printed = capsys.readouterr().out
    assert f"{loss:.3f}" in printed and "1.000" in printed
    if not fails:
        assert "trained 50.0, random weights 40.0, raw pixels 41.0" in printed and "What to try next" in printed
    assert len(list((tmp_path / "demo" / "clips").iterdir())) == 3
    with pytest.raises(UserError, match="already holds a run"):
        demo.demo(DemoConfig(tmp_path / "demo"))


@pytest.mark.slow
def test_the_demo_learns(tmp_path):
    demo.demo(DemoConfig(tmp_path / "demo"))
    metrics = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert metrics["held_out_loss"] < 0.9 * metrics["held_out_zero_loss"]
    assert metrics["held_out_zero_loss"] == pytest.approx(1, abs=0.05)
    assert (tmp_path / "demo" / "labels" / "labels.png").is_file()
