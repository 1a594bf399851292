"""The command: what it refuses before it serves."""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

import pytest

from videomac import cli
from videomac.app.command import LOOPBACK, Server
from videomac.app.config import AppConfig
from videomac.errors import UserError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_missing_gradio_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "videomac.app.page", raising=False)
    monkeypatch.delattr("videomac.app.page", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(["app", "--port", str(free_port())])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "the app needs gradio: pip install" in said and "Traceback" not in said
    assert list(temporary.iterdir()) == []


def test_a_port_that_is_taken_is_one_sentence(temporary: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot serve on 127.0.0.1, port {port} .*: pass another --port"):
            Server(AppConfig(port=port))
    assert list(temporary.iterdir()) == []


@pytest.mark.filterwarnings("default")  # gradio's own
def test_a_video_that_is_not_there_leaves_nothing_behind(temporary: Path) -> None:
    pytest.importorskip("gradio")
    with pytest.raises(UserError, match=r"nowhere\.mp4"):
        Server(AppConfig(video=temporary / "nowhere.mp4", backbone=["raw-pixels"], port=free_port(), device="cpu"))
    assert list(temporary.iterdir()) == []


def test_the_default_address_is_this_machine() -> None:
    assert AppConfig().host in LOOPBACK
