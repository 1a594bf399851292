"""Damage to files, and what a command says of it."""

from __future__ import annotations

import io
import random
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout

from tests.faults.test_options import time_limit
from videomac import cli

LIMIT = 120
"""Seconds after which something that has not come to an end is taken to hang."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One of: bits turned, cut off, zeros or noise in a stretch, a stretch twice or missing, large sizes written."""
    if not content:
        return draw.randbytes(8)
    changed, length = bytearray(content), len(content)
    at = draw.choice(
        [draw.randrange(length), draw.randrange(min(length, 64)), draw.randrange(max(0, length - 256), length)]
    )
    stretch = min(draw.choice([1, 4, 16, 256, length // 3 + 1]), length - at)
    kind = draw.choice(["bits", "cut", "zeros", "noise", "twice", "missing", "sizes", "empty"])
    if kind == "bits":
        for _ in range(draw.choice([1, 1, 3, 30])):
            changed[draw.randrange(length)] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "zeros":
        changed[at : at + stretch] = bytes(stretch)
    elif kind == "noise":
        changed[at : at + stretch] = draw.randbytes(stretch)
    elif kind == "twice":
        changed[at:at] = content[at : at + stretch]
    elif kind == "missing":
        del changed[at : at + stretch]
    elif kind == "sizes":
        changed[at : at + 4] = draw.choice(
            [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01", b"\xff\xff\xff\x7f"]
        )
    else:
        changed.clear()
    return bytes(changed)


def answer(arguments: list[str]) -> tuple[str, str]:
    """Run a command in this process: "done", "refused" (one sentence, status 2) or "failed", and what it said."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err), time_limit(LIMIT):
            status = cli.main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    except BaseException:
        return "failed", traceback.format_exc()
    said = err.getvalue()
    sentences = [line for line in said.splitlines() if line.startswith("videomac: ")]
    if "Traceback" in said:
        return "failed", said[-3000:]
    if status in (None, 0):
        return "done", said
    if status == 2 and len(sentences) == 1 and len(sentences[0]) < 3000:
        return "refused", sentences[0]
    return "failed", f"status {status}: {said[-3000:]}"


def summary(name: str, counts: Counter[str], failures: list[str]) -> str:
    """A line for the page of the docs."""
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"{name}: {counts.total()} cases ({found}), {len(failures)} failures"
