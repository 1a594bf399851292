"""Names that are read from files: never paths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from videomac.errors import UserError

_FORBIDDEN = ("\\", ":", "\0", "\n", "\r")
"""Beside "/": what separates, names a drive or a stream, or ends a name on some system."""


def require_names(names: Iterable[str], where: Path, parts: int = 1) -> None:
    """Refuse names that would lead out of the folder in which they are looked up.

    Args:
        names: as they stand in a file, such as a split list.
        where: that file, for the message.
        parts: names that follow each other in one, separated by "/": 2 for `class/video`.

    Raises:
        UserError: names the first one that is no plain name.
    """
    for name in names:
        pieces = name.split("/")
        if len(pieces) != parts or not all(map(_is_plain, pieces)):
            form = "/".join(["NAME"] * parts)
            raise UserError(
                f"{where} holds {name[:100]!r}, which is not a plain name ({form}): names may not lead out of their "
                "folder; correct that line or rename the folder"
            )


def _is_plain(name: str) -> bool:
    try:
        short = len(name.encode("utf-8")) <= 255
    except UnicodeEncodeError:  # a file name that is not UTF-8 in the file system
        return False
    return short and bool(name.strip(". ")) and not any(character in name for character in _FORBIDDEN)
