"""What the server refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from videomac.app.fence import Fence, fetches


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://example.org/a.mp4",
        "/file=http:/example.org/a",
        "/gradio_api/proxy=https://example.org",
    ],
)
def test_nothing_is_fetched_from_elsewhere(path: str) -> None:
    assert fetches(path)
    assert answer(path)[0]["status"] == 403


def test_all_else_is_let_through_with_the_policy() -> None:
    start, body = answer("/gradio_api/file=/tmp/labels.zip")
    headers = dict(start["headers"])
    assert start["status"] == 200 and body["body"] == b"page"
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy


def answer(path: str) -> list[Any]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"page"})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads the request")

    asyncio.run(Fence(app)({"type": "http", "path": path}, receive, send))
    return sent
