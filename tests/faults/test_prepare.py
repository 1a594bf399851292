"""`videomac prepare`, killed twenty times with all of its processes: the same bytes, no leftovers, no clip twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.prepare.footage import content, left_over, write_footage

KILLS = 20


@pytest.mark.faults
@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_20_kills(tmp_path: Path, seed: int) -> None:
    raw, clips = write_footage(tmp_path / "raw"), tmp_path / "clips"
    words = [sys.executable, "-m", "videomac", "prepare", str(raw), str(clips), "--workers", "2"]
    start = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    expected, seconds = content(clips), time.monotonic() - start
    shutil.rmtree(clips)
    draw, kills = random.Random(seed), 0
    while kills < KILLS:
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                process.wait(draw.uniform(0.2, 0.9) * seconds)  # the first part of it is spent on imports
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        names = set(content(clips)) if clips.is_dir() else set()
        assert {name for name in names if name.endswith(".mp4")} <= expected.keys() | {
            name for name in names if name.startswith(".prepare/tmp/")
        }
        if kills % 5 == 0 and kills:
            subprocess.run(words, check=True, capture_output=True)
            assert content(clips) == expected and not left_over(clips)
            shutil.rmtree(clips)
            print(f"{kills} kills", flush=True)
