"""Shares of a work that several calls do, such as those of a job array: i/n, with i from 0."""

from __future__ import annotations

import re

from videomac.errors import UserError


def parse_share(key: str, text: str) -> tuple[int, int]:
    """Read `i/n` as two numbers.

    Args:
        key: the option, for the message.
        text: its value.

    Raises:
        UserError: it is none.
    """
    given = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if not given or int(given[1]) >= int(given[2]):
        raise UserError(f"{key} must be i/n with i from 0 to n - 1, such as 0/4 and 3/4, but is {text!r}")
    return int(given[1]), int(given[2])
