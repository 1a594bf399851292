"""The progress bar: hours of footage done, how many times faster than they last, when all will be."""

from __future__ import annotations

import time

from tqdm import tqdm


def duration(seconds: float) -> str:
    """So much footage, in words."""
    return f"{seconds / 3600:,.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


def size(amount: int) -> str:
    """So many bytes, in words."""
    return f"{amount / 2**30:,.2f} GiB" if amount >= 2**30 else f"{amount / 2**20:.1f} MiB"


def counted(number: int, noun: str) -> str:
    """So many of something, in words."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


class Progress:
    """A bar over the bytes of all sources, because only reading them tells how long they last."""

    def __init__(self, total: int, name: str = "Preparing") -> None:
        """Start the clock."""
        self._started = time.monotonic()
        self._seconds = 0.0
        form = "{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
        self._bar = tqdm(total=max(total, 1), desc=name, bar_format=form, mininterval=0.5, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def add(self, seconds: float, size: float) -> None:
        """So many seconds of footage more are done, which were so many bytes."""
        self._seconds += seconds
        times = self._seconds / max(time.monotonic() - self._started, 1e-3)
        self._bar.set_postfix_str(f"{self._seconds / 3600:.3f} h done, {times:.1f} times real time", refresh=False)
        self._bar.update(max(0.0, min(size, self._bar.total - self._bar.n)))
