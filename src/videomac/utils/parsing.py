"""Options of a command: a config dataclass gives its flags, YAML keys and help, and a mistake becomes one sentence."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from videomac.errors import UserError
from videomac.utils.checks import option_types, require_writable, shown, wording

MODE = "videomac"
"""Name by which the parser knows how we read YAML."""
LONGEST_WORD = 2**16
"""Characters of an argument."""
WRITTEN = frozenset({"out", "clips"})
"""Options that name the folder that a command writes into."""
SWITCHES: tuple[Any, ...] = (bool, bool | Literal["auto"])
"""Options whose flag alone says true."""
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME", Path: "PATH"}
METAVARS.update({kind | None: name for kind, name in METAVARS.items()})


def parse(name: str, config: type[Any], arguments: Sequence[str], *, positional: bool = False) -> Any:
    """Turn the options of a command into its config dataclass.

    Args:
        name: of the command.
        config: the class.
        arguments: what stands behind the command on the command line.
        positional: required options but `out` are written without their flags.

    Raises:
        UserError: an option is unknown, missing, of the wrong type, or refused by the config.
    """
    import yaml
    from jsonargparse import ArgumentParser, set_loader

    from videomac.utils.yaml_text import load

    set_loader(MODE, load, (yaml.YAMLError,))
    types = option_types(config)
    bare = {field.name for field in fields(config) if _is_positional(field, positional)}
    for number, argument in enumerate(arguments):
        _require_words(argument, arguments[number - 1] if number else "", types)
    _require_readable(_files(arguments), types)
    parser = ArgumentParser(
        prog=f"videomac {name}", exit_on_error=False, allow_abbrev=False, add_help=False, parser_mode=MODE
    )
    parser.add_argument("--config", action="config")
    # Which command wrote a config.yaml changes nothing of what is done.
    parser.add_argument("--command", default=argparse.SUPPRESS)
    # What a command writes into is never positional: two folders in a row would be mistaken for each other.
    out = {field.name for field in fields(config) if positional and _is_required(field)} - bare
    parser.add_class_arguments(config, as_group=False, as_positional=positional, skip=set(out))
    for option in out:
        parser.add_argument(f"--{option}", type=types[option], required=True)
    try:
        values = parser.parse_args(_spelt_out(arguments, types, bare))
    except argparse.ArgumentError as error:
        raise UserError(_explain(str(error), name, arguments, types, bare)) from error
    made = config(**{field: values[field] for field in types})
    for option in sorted(WRITTEN & types.keys()):
        if (folder := getattr(made, option)) is not None:
            require_writable(option, folder)
    return made


def _require_words(argument: str, before: str, types: Mapping[str, Any]) -> None:
    """Refuse a word that no option can take; the folder "" would become the current one.

    Raises:
        UserError: it is empty, or longer than what any option takes.
    """
    option, _, value = argument.partition("=")
    if not argument.strip() or (option.startswith("--") and "=" in argument and not value.strip()):
        name = option if option.strip() else before if before.startswith("--") else "an argument"
        raise UserError(f"{name} is empty: give it a value, or leave it out")
    if len(argument) > LONGEST_WORD:
        raise UserError(f"{shown(argument)} is too long: an option takes at most {LONGEST_WORD:,} characters")


def _require_readable(files: Iterable[str], types: Mapping[str, Any]) -> None:
    """Read the config files before the parser does, to say what is wrong with one.

    Raises:
        UserError: there is no such file, it is not YAML of plain values, or a path in it is empty.
    """
    import yaml

    from videomac.utils.yaml_text import read

    for file in files:
        try:
            found = read(Path(file))
        except UserError as error:
            raise UserError(f"--config: {error}") from error
        except yaml.YAMLError as error:
            raise UserError(f"{file} is not valid YAML: {' '.join(str(error).split())[:300]}") from error
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise UserError(f"{file} must hold lines such as `epochs: 100`, one option each")
        for key, value in found.items():
            if key == "config":
                raise UserError(f"{file} names another config: write its options into one file")
            if isinstance(value, str) and not value.strip() and key in types:
                raise UserError(f"{key} must not be empty, but is so in {file}: give it a value, or leave it out")


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _is_positional(field: Field[Any], positional: bool) -> bool:
    return positional and _is_required(field) and field.name != "out"


def _is_list(kind: Any) -> bool:
    return list in (get_origin(kind), *map(get_origin, get_args(kind)))


def _spelt_out(arguments: Sequence[str], types: Mapping[str, Any], bare: Iterable[str]) -> list[str]:
    """Write what jsonargparse wants: `--names a b` as `--names ["a", "b"]`, and `--resume` as `--resume true`."""
    lists = {f"--{option}" for option, kind in types.items() if _is_list(kind)}
    switches = {f"--{option}" for option, kind in types.items() if kind in SWITCHES}
    spelt: list[str] = []
    # Words at the start belong to a positional list, if there is one.
    words: list[str] | None = [] if any(_is_list(types[option]) for option in bare) else None
    for argument, following in zip([*arguments, "--"], [*arguments[1:], "--", "--"], strict=False):
        if words is not None and not argument.startswith("-"):
            words.append(argument)
            continue
        if words:
            spelt.append(json.dumps(words) if not words[0].startswith("[") else words[0])
        words = [] if argument in lists else None
        spelt.append(argument)
        if argument in switches and following.startswith("-"):
            spelt.append("true")
    return spelt[:-1]


# Help -----------------------------------------------------------------------------------------------------------------


def help_text(name: str, config: type[Any], *, positional: bool = False) -> str:
    """All options of a command with their sentences and defaults, under the headings of `config.sections`."""
    sections: Mapping[str, str] = getattr(config, "sections", {})
    types, sentences = option_types(config), _sentences(config)
    bare = [field for field in fields(config) if _is_positional(field, positional)]
    parser = argparse.ArgumentParser(
        usage=" ".join(["videomac", name, *(_metavar(types[field.name], flag=False) for field in bare), "[options]"]),
        description=config.__doc__,
        formatter_class=partial(argparse.HelpFormatter, max_help_position=30, width=110),
    )
    parser.add_argument("--config", metavar="PATH", help="YAML file with any of the options below")
    parser.add_argument("--print_config", action="store_true", help="print all options as YAML and exit")
    headed = {title: parser.add_argument_group(title) for title in dict.fromkeys(sections.values())}
    group: Any = parser
    for field in fields(config):
        kind, text = types[field.name], _help(field, sentences[field.name])
        if field in bare:
            parser.add_argument(field.name, metavar=_metavar(kind, flag=False), help=text)
            continue
        group = headed[sections[field.name]] if field.name in sections else group
        takes_none = {"nargs": "?"} if kind in SWITCHES else {}
        group.add_argument(f"--{field.name}", metavar=_metavar(kind, flag=True), help=text, **takes_none)
    return parser.format_help()


def _sentences(config: type[Any]) -> dict[str, str]:
    """The docstring below each field, of a class and its bases."""
    found: dict[str, str] = {}
    for kind in reversed(inspect.getmro(config)):
        if kind is object:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(field.target, ast.Name) and isinstance(below.value, ast.Constant)
                found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _help(field: Field[Any], sentence: str) -> str:
    """A sentence with what holds unless the option is given, for argparse."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if default is MISSING:
        sentence += " (required)"
    elif default not in (None, {}):
        sentence += f" (default: {str(default).lower() if isinstance(default, bool) else default})"
    return sentence.replace("%", "%%")


def _metavar(kind: Any, *, flag: bool) -> str:
    """What kind of value an option takes, in a word."""
    if kind in SWITCHES:
        return "true|false" if kind is bool else "true|false|auto"
    if _is_list(kind):
        return f"{'NAME' if flag else 'PATH'} ..."
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return METAVARS.get(kind, "VALUE")


# Mistakes -------------------------------------------------------------------------------------------------------------


def suggestion(word: str, known: Iterable[str]) -> str:
    """A question that names the word nearest to a mistyped one; empty if none is near."""
    close = close_names(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def close_names(word: str, known: Iterable[str], count: int) -> list[str]:
    """The names that may have been meant: those that begin with the word, then those with it inside, then like it."""
    names, similar = list(known), difflib.SequenceMatcher(b=word)

    def likeness(name: str) -> float:
        similar.set_seq1(name)
        return similar.ratio()

    ranked = sorted(names, key=lambda name: (not name.startswith(word), word not in name, -likeness(name)))
    return [name for name in ranked if word in name or likeness(name) >= 0.6][:count]


def _explain(text: str, name: str, arguments: Sequence[str], types: Mapping[str, Any], bare: set[str]) -> str:
    """Return jsonargparse's complaint as one sentence that names the option or file and the cure."""
    text = " ".join(text.split())
    help_ = f"`videomac {name} --help` lists the options"
    if match := re.search(r"[Uu]nrecognized arguments: (\S+)", text):
        word = match.group(1).split("=")[0]
        if not word.startswith("-"):
            return f"unexpected argument {word!r}: options are written as --name value; {help_}"
        return f"unknown option {word}{_close_option(word, types, '--')}; {help_}"
    if match := re.search(r"Option '(\S+)' is not accepted", text):
        return f"unknown key {match.group(1)!r} in {_file(arguments)}{_close_option(match.group(1), types)}; {help_}"
    if match := re.search(r"arguments are required: (.+)", text):
        missing = ", ".join(option if option in bare else f"--{option}" for option in match[1].split(", "))
        return f"missing {missing}; {help_}"
    if "File does not exist" in text:
        return f"--config: there is no file {_file(arguments)}"
    if match := re.search(r"Problems parsing config: (.+)", text):
        return f"{_file(arguments)} is not valid YAML: {match.group(1)}"
    if "Unexpected config" in text:
        return f"{_file(arguments)} must hold lines such as `epochs: 100`, one option each; {help_}"
    if (match := re.search(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)$', text)) and match[1] in types:
        return f"{match.group(1)} must be {wording(types[match.group(1)])}, but is {shown(match.group(2))}"
    return f"{text.removeprefix('argument ')[:500]}; {help_}"


def _file(arguments: Sequence[str]) -> str:
    """Return the file given to `--config`."""
    return next(iter(_files(arguments)[::-1]), "the config file")


def _files(arguments: Sequence[str]) -> list[str]:
    """Return all files given to `--config`."""
    return [
        word.partition("=")[2] or following
        for word, following in zip(arguments, [*arguments[1:], ""], strict=False)
        if word.split("=")[0] == "--config"
    ]


def _close_option(word: str, options: Iterable[str], prefix: str = "") -> str:
    close = close_names(word.lstrip("-").replace("-", "_"), options, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
