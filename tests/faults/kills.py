"""Commands that are killed at a random moment, resumed until they are done, and compared with one left alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.classify.folders import write_images
from tests.train import runs
from videomac.evaluate import synthetic
from videomac.utils.io import read_torch

HANG = 120
"""Seconds without an end after which a command is taken to hang; left alone each takes a tenth of that."""
CLOCK = {"pairs_per_second", "images_per_second", "data_wait_share", "seconds", "frames_per_second"}
"""Numbers that differ between equal runs."""
START_AGAIN = ("leave out --resume", "leave --resume out", "no evaluation to resume", "no features to use")
"""What `--resume` says where nothing has been kept yet: then the command starts without it."""


@dataclass(frozen=True)
class Victim:
    """A command, without `--out`, and whether it has data processes that can be killed alone."""

    name: str
    words: tuple[str, ...]
    workers: bool

    def command(self, out: Path, *more: str) -> list[str]:
        return [sys.executable, "-m", "videomac", *self.name.split(), *self.words, f"--out={out}", *more]


def victims(root: Path, clips: Path) -> list[Victim]:
    """Small commands on made-up data, each ten seconds or less."""
    images = write_images(root / "images")
    davis = synthetic.write_davis(
        root / "davis", {name: synthetic.scene(6, (48, 80), seed=seed) for seed, name in enumerate("abc")}
    )
    pretrain = runs.options(clips, root, workers=2, save_steps=1, backbone="test_resnet", drop_path=0.3)
    trained = {"data": images, "backbone": "test_convnext", "image_size": 32}
    finetune = {**trained, "epochs": 3, "warmup_epochs": 1, "global_batch_size": 8, "save_steps": 1, "workers": 2}
    cpu = "--trainer.accelerator=cpu"
    return [
        Victim("pretrain", (*_flags(pretrain), cpu), True),
        Victim("finetune", (*_flags(finetune), "--precision=32-true", cpu), True),
        Victim("probe", tuple(_flags({**trained, "k": 5, "workers": 2, "device": "cpu"})), True),
        Victim("eval davis", tuple(_flags({"data": davis, "backbone": "test_convnext", "device": "cpu"})), False),
    ]


def _flags(values: dict[str, Any]) -> list[str]:
    return [f"--{key}={value}" for key, value in values.items() if key not in ("out", "trainer")]


def finish(victim: Victim, out: Path, first: list[str] | None = None) -> None:
    """Go on with a command until it is done, without `--resume` where it says so.

    Raises:
        AssertionError: it hangs, prints a traceback, or does not come to its end.
    """
    words = ["--resume"] if first is None else first
    for _ in range(3):
        ended = subprocess.run(
            victim.command(out, *words), capture_output=True, text=True, timeout=HANG, start_new_session=True
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        if ended.returncode == 0 or "is finished, after" in ended.stderr:
            return
        assert ended.returncode == 2, ended.stderr
        assert words and any(words_ in ended.stderr for words_ in START_AGAIN), ended.stderr
        words = []
    raise AssertionError(f"{victim.name} does not come to its end")


def kill_once(victim: Victim, out: Path, after: float, whom: str, words: list[str], draw: random.Random) -> str | None:
    """Start a command, kill "group", "main" or one "worker" of it after some seconds.

    A worker is killed as soon after that as there is one; the command may end before, which is no kill.

    Returns:
        what happened to the command; None if it had ended by itself.
    """
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(victim.command(out, *words), start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        end = time.monotonic() + after
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        killed = _kill(process, whom, draw)
        try:
            _, errors = process.communicate(timeout=HANG)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
        assert "Traceback" not in errors or process.returncode == -signal.SIGKILL, errors
        return f"{whom}, status {process.returncode}" if killed else None


def _kill(process: subprocess.Popen[str], whom: str, draw: random.Random) -> bool:
    """Kill; return whether there was something to kill."""
    with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
        while process.poll() is None:
            if whom == "group":
                os.killpg(process.pid, signal.SIGKILL)
                return True
            if whom == "main":
                process.kill()
                return True
            if children := psutil.Process(process.pid).children():
                time.sleep(draw.uniform(0, 0.5))
                draw.choice(children).kill()
                return True
            time.sleep(0.02)
    return False


def fingerprint(out: Path) -> dict[str, str]:
    """Digests of everything that a command leaves and that must not depend on how it came to its end."""
    found: dict[str, str] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        assert ".partial" not in name and path.name != ".lock", f"{name} was left behind"
        if path.name == "metrics.json":
            numbers = json.loads(path.read_text())
            found[name] = json.dumps({key: value for key, value in numbers.items() if key not in CLOCK})
        elif path.name == "last.ckpt":
            state = read_torch(path)
            for part in ("global_step", "state_dict", "optimizer_states"):
                found[f"{name}:{part}"] = _digest(state[part])
        elif path.suffix in (".safetensors", ".png", ".csv") and "tensorboard" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _digest(tree: Any) -> str:
    whole = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                whole.update(repr(key).encode())
                add(item)
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            whole.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            whole.update(repr(value).encode())

    add(tree)
    return whole.hexdigest()


def campaign(victim: Victim, root: Path, kills: int, seed: int, say: Callable[[str], object] = print) -> int:
    """Kill a command so many times, in runs of up to three kills each; return how many kills were survived to the bit.

    Raises:
        AssertionError: something was lost, hung, or differs.
    """
    draw = random.Random(f"{seed} {victim.name}")
    whole, began = root / "whole", time.monotonic()
    finish(victim, whole, [])
    seconds, wanted = time.monotonic() - began, fingerprint(whole)
    done = number = 0
    while done < kills:
        out, words, number = root / f"run{number}", [], number + 1
        for _ in range(min(kills - done, draw.randint(1, 3))):
            whom = draw.choice(("group", "main", "worker") if victim.workers else ("group", "main"))
            after = draw.uniform(0.2, 1.0) * seconds
            if whom == "worker":  # it waits for one
                after /= 2
            happened = kill_once(victim, out, after, whom, words, draw)
            if happened is None:
                break
            say(f"{victim.name}: kill {done + 1} of {kills} (seed {seed}): {happened} after {after:.2f} s")
            done, words = done + 1, ["--resume"]
        finish(victim, out)
        found = fingerprint(out)
        assert found == wanted, sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    return done
