import csv
import importlib.util
from pathlib import Path

import pytest

import videomac
from videomac.checkpoint import load_backbone

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_plain_loop_gives_the_numbers_of_the_command(clips, tmp_path):
    spec = importlib.util.spec_from_file_location("plain_pytorch", EXAMPLES / "plain_pytorch.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    settings = {"data": clips, "backbone": "test_convnext", "image_size": 64, "epochs": 2}
    losses = list(example.pretrain(**settings, out=tmp_path / "plain", batch_size=32))

    trainer = {"accelerator": "auto"}
    videomac.pretrain(
        **settings, out=tmp_path / "run", global_batch_size=32, held_out=0, workers=0, devices=1, trainer=trainer
    )
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(losses) == 4
    for row, step in zip(rows, losses, strict=True):
        for name, value in step.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6), name
    assert rows[0]["loss"] != rows[-1]["loss"]
    plain, ours = load_backbone(tmp_path / "plain").state_dict(), load_backbone(tmp_path / "run").state_dict()
    assert max((plain[key] - ours[key]).abs().max().item() for key in plain) < 1e-6
