"""Options that nobody means: from the command line and from YAML, one sentence and status 2, or a run that may begin.

A command runs in this process, with what it does replaced by a stop just before the work: of a training, the model, the
data and the trainer are built. Status 1, a traceback and the last fence count as failures, and so does a command that
takes more than two minutes or writes anywhere but below its out folder.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs import options
from videomac import cli
from videomac.train import trainer
from videomac.utils.checks import option_types

LIMIT = 120
"""Seconds after which a command that says nothing is taken to hang."""
LONG = "x" * 10**6
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
"""9 to the 10th values in some 460 bytes."""

VALUES: list[Any] = [
    *(None, "", " ", [], {}, -1, 0, 1, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 1e5, 100_000, 10**30),
    *(
        1e-12,
        1e-320,
        0.99,
        -0.5,
        True,
        "word",
        "0",
        "auto",
        "a\0b",
        "../x",
        "x" * 300,
        [1],
        [1, 2],
        [-1, 2],
        ["a", None],
    ),
    *([[[]]], {"a": 1}, [float("nan"), 1], [0.5, 1e308], "2026-01-01", "1:30", "é" * 200, "\x1b[31m", "%s%n", "-"),
]
"""What an option is given in a YAML file."""
WORDS = [
    *("", " ", "null", "[]", "{}", "-1", "0", "1e308", "inf", "nan", ".inf", ".nan", "1e5", "1000000", "1e-12", LONG),
    *("[", "{", "*a", "&a [*a]", "!!int x", "!!python/name:os.system", "word", "[1,2]", "[.nan,1]", "a: b", "true"),
    *("1" * 5000, "0x_", "0b_", "1_0", "x" * 300, "../x", "\udcff", "é", "~", "|", "@x", "`x`", "1:30:00", "[" * 5000),
]
"""What an option is given on the command line."""
TRAINER = [
    *("accelerator", "strategy", "callbacks", "max_steps", "max_epochs", "precision", "gradient_clip_val", "benchmark"),
    *(
        "deterministic",
        "profiler",
        "detect_anomaly",
        "sync_batchnorm",
        "inference_mode",
        "barebones",
        "logger",
        "plugins",
    ),
    *(
        "limit_train_batches",
        "overfit_batches",
        "fast_dev_run",
        "val_check_interval",
        "num_sanity_val_steps",
        "max_time",
    ),
    *(
        "gradient_clip_algorithm",
        "enable_progress_bar",
        "check_val_every_n_epoch",
        "limit_val_batches",
        "no_such",
        "foo.a",
    ),
]
FILES: list[bytes] = [
    *(BOMB.encode(), b"a: &a [*a]", b"epochs: &a\n  - *a\n", b"\xff\xfe\x00", b"epochs: \xe9\n", b"epochs: !!int x\n"),
    *(b"seed: !!python/object/apply:os.system ['touch PWNED']\n", b"seed: !!python/name:os.system\n", b"!!set {a}\n"),
    *(
        b"seed: 1\nseed: 2\n",
        b"",
        b"null",
        b"[]",
        b"3",
        b"x",
        b"? [a]\n: b\n",
        b"1: 2\n",
        b"null: 3\n",
        b"<<: {a: 1}\n",
    ),
    *(b"[" * 30_000, b"{a: " * 3000, b"a: b: c", b"\t", b"\x00", b"- - - -", b"%YAML 9.9\n---\na: 1", b"---\n---\n"),
    *(
        b"config: other.yaml\n",
        b"config: [a]\n",
        b"command: [1]\n",
        b"help: true\n",
        b"print_config: true\n",
        b"'': 1\n",
    ),
    *(
        b"seed: " + b"9" * 5000,
        b"seed: 0b_",
        b"seed: 0x_",
        b"a" * 10**6,
        b"seed: 2026-99-99\n",
        b"seed.x: 1\n",
        b"\xef\xbb\xbfx",
    ),
    *(b"trainer: {accelerator: [cpu]}\n", b"trainer: {1: 2}\n", b"trainer: [a]\n", b"trainer: {a: {b: {c: 1}}}\n"),
]
"""What a config file holds."""


class Began(Exception):
    """A command has accepted its options."""


def base(command: str, data: Path, out: Path) -> dict[str, Any]:
    """Options with which a command would run."""
    if command == "pretrain":
        return {**options(data, out), "trainer": {"accelerator": "cpu"}}
    there = {"data": data, "out": out, "backbone": "test_resnet", "video": data, "checkpoint": data, "runs": [data]}
    there |= {
        "name": "test_resnet",
        "source": data,
        "folder": data,
        "predictions": data,
        "labels": [data / "clip0.mp4"],
    }
    there |= {"raw": data, "clips": out, "study": data / "study.yaml", "benchmark": data}
    config = cli._load(cli.COMMANDS[command].config)
    needed = {f.name for f in fields(config) if f.default is MISSING and f.default_factory is MISSING} | {"out"}
    needed |= {"labels", "backbone"} & option_types(config).keys()
    needed |= {"data", "benchmark"} if command == "study" else set()
    found = {key: there[key] for key in sorted(needed & option_types(config).keys())}
    if command == "features":
        found["backbone"] = [found["backbone"]]
    if command == "finetune":
        found["trainer"] = {"accelerator": "cpu"}
    return found


def as_words(command: str, values: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    config = cli._load(cli.COMMANDS[command].config)
    first: list[str] = []
    rest: list[str] = []
    for key, value in values.items():
        default = next(f for f in fields(config) if f.name == key)
        required = default.default is MISSING and default.default_factory is MISSING
        texts = [str(one) for one in value] if isinstance(value, list) else [str(value)]
        if key == "trainer":
            rest += ["--trainer.accelerator=cpu"]
        elif cli.COMMANDS[command].positional and required and key != "out":
            first += texts
        else:
            rest += [f"--{key}", *texts]
    return [*command.split(), *first, *rest]


def one_case(draw: random.Random, data: Path, folder: Path) -> list[str]:
    """A command line with something wrong in it, or a config file with something wrong."""
    command = draw.choice([*cli.COMMANDS, *["pretrain"] * 12, *["finetune"] * 3])
    out = folder / "out"
    values = base(command, data, out)
    config = cli._load(cli.COMMANDS[command].config)
    keys = list(option_types(config))
    kind = draw.random()
    if kind < 0.4:
        key = draw.choice(keys)
        word = draw.choice(WORDS)
        words = as_words(command, {k: v for k, v in values.items() if k != key})
        bare = cli.COMMANDS[command].positional and key in values and key not in ("out", "labels", "data", "benchmark")
        return [*words, word] if bare else [*words, *draw.choice([[f"--{key}", word], [f"--{key}={word}"]])]
    file = folder / "config.yaml"
    words = ["--config", str(file)]
    if kind < 0.8:
        for _ in range(draw.choice([1, 1, 1, 2])):
            values[draw.choice(keys)] = draw.choice(VALUES)
        plain = json.loads(json.dumps(values, default=str))
        import yaml

        file.write_text(yaml.safe_dump(plain), encoding="utf-8")
        return [*command.split(), *words]
    if kind < 0.9:
        if command not in ("pretrain", "finetune"):
            command = "pretrain"
        name, value = draw.choice(TRAINER), draw.choice(WORDS)
        words = as_words(command, base(command, data, out))
        return [*words, f"--trainer.{name}={value}"]
    file.write_bytes(draw.choice(FILES))
    return [*as_words(command, values), *words]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise an error that no command catches after so many seconds."""

    def stop(*_: Any) -> None:
        raise BaseException(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def stopped_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where their work would begin: a training before its first step, the others before anything."""
    from videomac.classify import finetune
    from videomac.train import pretrain

    def began(*_: Any, **__: Any) -> Any:
        raise Began

    for module in (pretrain, finetune, trainer):
        monkeypatch.setattr(module, "fit", began)
    load = cli._load

    def load_or_stop(location: str) -> Any:
        if "Config" in location or location.startswith(("train.", "classify.finetune")):
            return load(location)
        return began

    monkeypatch.setattr(cli, "_load", load_or_stop)
    guarded = cli._guarded

    def quiet(arguments: list[str]) -> int:
        from videomac.utils import fence

        monkeypatch.setattr(fence, "report", lambda error, _: "BEGAN" if isinstance(error, Began) else _log(error))
        return guarded(arguments)

    monkeypatch.setattr(cli, "_guarded", quiet)


def _log(error: BaseException) -> str:
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    own = [f for f in traceback.extract_tb(error.__traceback__) if "/videomac/" in f.filename][-1]
    return f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}, {own.filename}:{own.lineno})"


def answer(arguments: list[str]) -> tuple[str, str]:
    """Run a command line; what came of it (refused, began, printed, failed) and what it said."""
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    try:
        with redirect_stdout(out), redirect_stderr(err), time_limit(LIMIT):
            cli.main(arguments)
        return "failed", "main returned"
    except SystemExit as exit_:
        text = err.getvalue()
        if exit_.code == 1 and text == "videomac: bug: BEGAN\n":
            return "began", ""
        if exit_.code == 0:
            return "printed", ""
        # Lightning's own notes come before the sentence.
        said = [line for line in text.splitlines() if line.startswith("videomac: ")]
        if exit_.code != 2 or len(said) != 1 or "Traceback" in text or len(said[0]) > 3000:
            return "failed", f"status {exit_.code}: {text[-2000:]}"
        return "refused", said[0]
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error} after {time.monotonic() - start:.0f} s"


def try_many(seed: int, count: int, data: Path, folder: Path, seconds: float) -> tuple[Counter[str], list[str]]:
    """Try so many cases, or as many as there is time for."""
    counts: Counter[str] = Counter()
    failures: list[str] = []
    inside = folder / "inside"
    inside.mkdir()
    end = time.monotonic() + seconds
    there = os.getcwd()
    os.chdir(inside)
    try:
        for number in range(count):
            if time.monotonic() > end:
                failures.append(f"only {number} of {count} cases in {seconds} s")
                break
            here = folder / f"case{number}"
            here.mkdir()
            arguments = one_case(random.Random(f"{seed} {number}"), data, here)
            start = time.process_time()
            kind, said = answer(arguments)
            counts[kind] += 1
            if time.process_time() - start > 20:
                print(f"slow: case {number}, {time.process_time() - start:.0f} s: {short(arguments)}")
            if kind == "failed":
                file = here / "config.yaml"
                text = file.read_bytes()[:600] if file.exists() else b""
                failures.append(f"case {number}: {short(arguments)}\n{text!r}\n  {said}")
            if (found := {path.name for path in inside.iterdir()}) - asked_for(arguments):
                failures.append(f"case {number} wrote outside of its folder: {found}, {short(arguments)}")
                break
            for name in found:
                shutil.rmtree(inside / name)
    finally:
        os.chdir(there)
    return counts, failures


def asked_for(arguments: list[str]) -> set[str]:
    """The folders of the current one that a command line, or its config file, itself names for what it writes."""
    words = [word for pair in zip(arguments, [*arguments[1:], ""], strict=True) for word in written_words(*pair)]
    return {Path(word).parts[0] for word in words if word.strip()}


def written_words(word: str, following: str) -> list[str]:
    option, _, value = word.partition("=")
    if option in ("--out", "--clips"):
        return [value or following]
    if option == "--config" and Path(following).is_file():
        with suppress(ValueError):
            lines = Path(following).read_text(encoding="utf-8").splitlines()
            return [line.partition(":")[2].strip(" '\"") for line in lines if line.startswith(("out:", "clips:"))]
    return []


def short(arguments: list[str]) -> str:
    return " ".join(word if len(word) < 200 else f"{word[:60]}...({len(word)})" for word in arguments)


def test_options_that_nobody_means_are_one_sentence(clips: Path, tmp_path: Path, stopped_before_the_work: None) -> None:
    counts, failures = try_many(12, 60, clips, tmp_path, 110)
    assert not failures, "\n".join(failures)
    assert counts["refused"] > 30


@pytest.mark.faults
def test_a_thousand_options_that_nobody_means(
    clips: Path, tmp_path: Path, stopped_before_the_work: None, seed: int
) -> None:
    count = int(os.environ.get("FAULTS_CASES", "1000"))
    counts, failures = try_many(seed, count, clips, tmp_path, 3000)
    print(f"options: FAULTS_SEED={seed}: {sum(counts.values())} cases, {dict(counts)}, {len(failures)} failures")
    print("\n".join(failures), file=sys.stderr)
    assert not failures, f"{len(failures)} failures"
