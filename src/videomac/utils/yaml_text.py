"""Reading YAML that anybody may have written: plain values only, no more than a config can need."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from videomac.errors import UserError

LONGEST = 2**18
"""Characters of a YAML text."""
DEEPEST = 20
"""Lists and mappings within each other."""

_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*)?(?:\.[0-9_]+|[0-9]\.[0-9_]*)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
"""YAML 1.2's numbers: 1e-3 is one, as in JSON and Python, and 1:30 is none."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values; `1e-3` is a number, a date is text, and no key may come twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse keys that come twice, of which YAML would silently take the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        made: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return made


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in ("timestamp", "float", "merge")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+0123456789."))


def load(text: str) -> Any:
    """Read a YAML text of plain values.

    Aliases and tags are refused: the former let a few hundred bytes stand for more values than fit into memory, or for
    one that holds itself, the latter name types. So are keys that come twice.

    Raises:
        yaml.YAMLError: it is no YAML, or one of the above.
    """
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it has more than {LONGEST:,} characters")
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError("anchors and aliases (& and *) are not read: write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.YAMLError("tags (!) are not read: write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} lists or mappings within each other")
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader, which makes plain values only
    except ValueError as error:  # such as a number of more digits than Python reads
        raise yaml.YAMLError(str(error)) from error


def read(path: Path) -> Any:
    """Read a file of such YAML.

    Raises:
        UserError: there is no such file, or it cannot be read: it is no ordinary file, too long, or not in UTF-8.
        yaml.YAMLError: see `load`.
    """
    try:
        if not path.exists():
            raise UserError(f"there is no file {path}")
        if not path.is_file():
            raise UserError(f"{path} is no ordinary file: name a YAML file")
        with path.open("rb") as file:
            content = file.read(4 * LONGEST + 1)
        return load(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 (byte {error.start}): save it as UTF-8") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{str(path)[:200]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from error
