"""A run's process lives no longer than the study's."""

from __future__ import annotations

import os
import signal
import threading


def end_with_the_study() -> None:
    """Save and end when standard input does, which is a pipe of the process that makes the study."""

    def watch() -> None:
        while os.read(0, 1):  # not by sys.stdin, whose lock this thread would hold when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
