"""`videomac study`, killed with or without its runs at random moments: in the end the same table."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.study.test_command import TOY
from videomac.evaluate import synthetic

KILLS = 8
TABLES = ("table.md", "table.csv", "table.json", "runs.csv")


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_8_kills(tmp_path: Path, clips: Path, seed: int) -> None:
    scenes = {name: synthetic.scene(4, (48, 80), seed=number) for number, name in enumerate("ab")}
    davis = synthetic.write_davis(tmp_path / "davis", scenes)
    study = {**TOY, "seeds": [0, 1], "base": {**TOY["base"], "steps": 12, "save_steps": 2}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))

    def words(out: str) -> list[str]:
        first = [sys.executable, "-m", "videomac", "study", str(tmp_path / "study.yaml"), f"--out={tmp_path / out}"]
        return [*first, f"--data={clips}", f"--benchmark={davis}", "--jobs=2"]

    start = time.monotonic()
    subprocess.run(words("whole"), check=True, capture_output=True)
    seconds, draw, kills = time.monotonic() - start, random.Random(seed), 0
    while True:
        with subprocess.Popen(words("killed"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                said, _ = process.communicate(timeout=draw.uniform(0.3, 0.8) * seconds if kills < KILLS else 600)
                assert process.returncode == 0, said.decode()
                break
            except subprocess.TimeoutExpired:
                kind = kills % 3
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM if kind == 2 else signal.SIGKILL)
                for child in children if kind == 1 else []:
                    child.kill()
                kills += 1
    for name in TABLES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.partial"))
    print(f"{kills} kills")
