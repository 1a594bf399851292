"""The last fence."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from videomac.utils import fence


def failing() -> Exception:
    try:
        raise KeyError("nobody foresaw\nthis")
    except KeyError as error:
        return error


def test_the_log_holds_the_command_and_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sentences = {fence.report(failing(), ["pretrain", "--data", "a b"]) for _ in range(2)}
    assert len(sentences) == 2, "each process has a log of its own"
    for sentence in sentences:
        assert "\n" not in sentence and "please report it" in sentence and "KeyError" in sentence
        log = Path(re.findall(r"\S+\.log", sentence)[0])
        assert log.parent == tmp_path and log.stat().st_mode & 0o077 == 0
        text = log.read_text()
        assert "videomac pretrain --data 'a b'" in text and "Traceback" in text and "in failing" in text


def test_without_a_place_for_the_log_the_sentence_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    sentence = fence.report(failing(), [])
    assert "test_fence.py, line" in sentence and "no log could be written" in sentence


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "memory"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("a mistake"), None),
        (ImportError("no module named x"), None),
        (KeyError("x"), None),
    ],
)
def test_what_the_machine_lacks_is_no_bug(error: Exception, words: str | None) -> None:
    found = fence.of_the_machine(error)
    assert (found is None) if words is None else (found is not None and words in found)
