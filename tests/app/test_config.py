"""What `app` can be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomac.app.config import AppConfig
from videomac.errors import UserError


def test_the_page_is_for_this_machine_unless_asked() -> None:
    config = AppConfig(video=Path("clip.mp4"))
    assert config.host == "127.0.0.1" and config.backbone is None


@pytest.mark.parametrize("port", [0, 65536, "first"])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(UserError, match="port"):
        AppConfig(port=port)
