"""What every option of every command must be: of its type, finite, of a sensible size; one place for all of them."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from videomac.errors import UserError

LARGEST = 2**32 - 1
"""A whole number may not be further from 0: the largest seed that NumPy takes, and more than anything can count."""
HIGHEST, LOWEST = 1e12, 1e-12
"""A number other than 0 must lie between these, with either sign; beyond them float32 has infinities and zeros."""
LONGEST_TEXT, LONGEST_NAME = 4095, 255
"""Bytes of a text or path, and of one name within a path, as file systems have it."""


def check_values(config: Any) -> None:
    """Refuse a config dataclass in which a value is not of its option's type, or is one that nothing can be done with.

    A value may be None where that is the default, or the type says so. Numbers must be finite. A path is taken for a
    text, as which it is kept.

    Raises:
        UserError: names the first such option.
    """
    kinds = option_types(type(config))
    for field in fields(config):
        value, kind = getattr(config, field.name), kinds[field.name]
        if value is None and field.default is None:
            continue
        if kind in _TEXTS:
            value = [_as_text(item) for item in value] if isinstance(value, list | tuple) else _as_text(value)
            setattr(config, field.name, value)
        if not _is_a(value, kind):
            raise UserError(f"{field.name} must be {wording(kind)}, but is {shown(value)}")
        if (problem := _problem(value)) is not None:
            raise UserError(f"{field.name} {problem}, but is {shown(value)}")


_TEXTS = (str, str | None, list[str], list[str] | None)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, os.PathLike) else value


def option_types(config: type[Any]) -> dict[str, Any]:
    """The type of each option of a config dataclass, in order."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config)}


def shown(value: Any) -> str:
    """A value for a sentence: as it is written, but not all of a long one."""
    text = repr(str(value) if isinstance(value, os.PathLike) else value) if _is_short(value) else "too long to show"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"


def _is_short(value: Any) -> bool:
    """Whether a value can be written at all: Python refuses whole numbers of more than a few thousand digits."""
    return not isinstance(value, int) or abs(value) < 10**100


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value has a type of an option."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(type(value) is type(one) and value == one for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(arguments) and all(map(_is_a, value, arguments))
    if origin is list:
        return isinstance(value, tuple | list) and all(_is_a(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if arguments:  # of a union
        return any(_is_a(value, one) for one in arguments)
    if kind is Any:  # a name, or an object that only Python code can pass
        return not isinstance(value, bool | int | float | bytes | list | tuple | dict | None)
    if kind is Path:
        return isinstance(value, str | os.PathLike)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _problem(value: Any) -> str | None:
    """What is wrong with a value that has the right type."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        if len(value) > LONGEST_TEXT:
            return f"must be of at most {LONGEST_TEXT:,} values"
        return next((problem for item in value if (problem := _problem(item)) is not None), None)
    if isinstance(value, str | os.PathLike):
        return _problem_of_text(os.fspath(value))
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return None if -LARGEST <= int(value) <= LARGEST else f"must lie between -{LARGEST:,} and {LARGEST:,}"
    if not math.isfinite(value):
        return "must be finite"
    if value != 0 and not LOWEST <= abs(float(value)) <= HIGHEST:
        return f"must lie between {LOWEST} and {HIGHEST}, or be 0"
    return None


def _problem_of_text(text: str) -> str | None:
    if not text.strip():
        return "must not be empty"
    if "\0" in text:
        return "must not hold a NUL character"
    names = os.fsencode(text).split(os.sep.encode()) if _encodes(text) else [b""]
    if sum(map(len, names)) + len(names) > LONGEST_TEXT or max(map(len, names)) > LONGEST_NAME:
        return f"must have at most {LONGEST_TEXT:,} bytes, and each name of a path {LONGEST_NAME}"
    return None if _encodes(text) else "holds a letter that no file name can have"


def _encodes(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def wording(kind: Any) -> str:
    """Return a type in words: `int | None` as "a whole number or null"."""
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if kind in simple:
        return simple[kind]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return "one or more: " + wording(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return "[" + ", ".join(map(wording, get_args(kind))) + "]"
    if get_args(kind) and get_origin(kind) is not dict:
        return " or ".join(map(wording, get_args(kind)))
    return {Path: "a path", Any: "a name or a path"}.get(kind, "a mapping")


def require_writable(key: str, out: Path) -> None:
    """Refuse an out folder that cannot be one: a file, below a file, or where nothing may be written.

    Raises:
        UserError: says which part of the path is in the way.
    """
    try:
        existing = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise UserError(f"{key} {out} cannot be a folder, because {existing} is a file: choose another one")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f"{key} {out} cannot be written: {existing} allows it not, choose another one")
    except OSError as error:
        raise UserError(f"{key} {out} cannot be looked at: {error.strerror}") from error
