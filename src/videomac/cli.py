"""The command line: a table of commands, and what turns a mistake into one sentence.

Every command is a config dataclass (its flags, YAML keys and help) and a function that takes it, named by its module so
that torch is imported only when the command runs.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from videomac.errors import UserError


@dataclass(frozen=True)
class Command:
    """One row of the table: where the options and the function are, and the line shown by `videomac --help`."""

    config: str
    function: str
    help: str
    positional: bool = False  # required options but --out are written without their flags


COMMANDS = {
    "demo": Command(
        "demo.config:DemoConfig", "demo.command:demo", "pre-train a small network on three clips, on the CPU"
    ),
    "pretrain": Command(
        "train.config:PretrainConfig", "train.pretrain:run", "pre-train a timm ConvNet on a folder of videos"
    ),
    "reconstruct": Command(
        "reconstruction.config:ReconstructConfig", "reconstruction.command:run", "show what a network makes of a video"
    ),
    "finetune": Command(
        "classify.config:FinetuneConfig", "classify.finetune:run", "train a backbone to classify images"
    ),
    "probe": Command("classify.config:ProbeConfig", "classify.probe:run", "judge frozen features: linear probe, k-NN"),
    "export": Command("exporting.config:ExportConfig", "exporting.command:run", "write weights for other tools", True),
    "figures": Command(
        "figures.config:FiguresConfig", "figures.command:run", "draw the paper's figures from runs", True
    ),
    "report": Command("reporting.config:ReportConfig", "reporting.command:run", "one HTML page of a run", True),
    "inspect": Command(
        "inspection.config:InspectConfig", "inspection.command:run", "show what becomes of a network's layers", True
    ),
    "eval davis": Command(
        "evaluate.config:EvalDavisConfig", "evaluate.benchmarks.davis:run", "video object segmentation, J&F"
    ),
    "eval vip": Command("evaluate.config:EvalVipConfig", "evaluate.benchmarks.vip:run", "body part propagation, mIoU"),
    "eval jhmdb": Command("evaluate.config:EvalJhmdbConfig", "evaluate.benchmarks.jhmdb:run", "pose tracking, PCK"),
    "score davis": Command(
        "evaluate.config:ScoreDavisConfig",
        "evaluate.benchmarks.davis:score_predictions",
        "score masks made by any tool",
    ),
    "score vip": Command(
        "evaluate.config:ScoreVipConfig",
        "evaluate.benchmarks.vip:score_predictions",
        "score body parts made by any tool",
    ),
    "score jhmdb": Command(
        "evaluate.config:ScoreJhmdbConfig",
        "evaluate.benchmarks.jhmdb:score_predictions",
        "score joints made by any tool",
    ),
    "bench": Command("bench.config:BenchConfig", "bench.command:run", "measure what pre-training costs here"),
    "compare": Command("evaluate.config:CompareConfig", "evaluate.compare:run", "set evaluations side by side", True),
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 a check failed, 2 bad input (one sentence, no traceback), 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Before torch is loaded: OpenMP threads that wait by spinning take the cores from data workers and other programs,
    # which made training on a busy CPU up to ten times slower; sleeping costs nothing that could be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        name, rest = find_command(arguments)
        config = parse(name, rest)
        _load(COMMANDS[name].function)(config)
        sys.exit(0)
    except UserError as error:
        print(f"videomac: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(f"\nvideomac: {interrupt or 'interrupted'}", file=sys.stderr)
        sys.exit(130)


def find_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Split the command's one or two words from its options; print the table for `--help`.

    Raises:
        UserError: no command has this name.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help()
    if arguments[0] == "--version":
        print(f"videomac {importlib.import_module('videomac').__version__}")
        sys.exit(0)
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    family = [name for name in COMMANDS if name.startswith(arguments[0] + " ")]
    if family and arguments[1:2] in ([], ["-h"], ["--help"]):
        _print_help(family)
    typed = " ".join(word for word in arguments[: 2 if family else 1])
    raise UserError(f"unknown command {typed!r}{_suggestion(typed, COMMANDS)}; `videomac --help` lists the commands")


def parse(name: str, arguments: list[str]) -> Any:
    """Turn the options of command `name` into its config dataclass.

    Raises:
        UserError: an option is unknown, missing, of the wrong type, or refused by the config.
    """
    from jsonargparse import ArgumentParser, set_parsing_settings

    command = COMMANDS[name]
    config = _load(command.config)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(
        prog=f"videomac {name}",
        description=config.__doc__,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    # What a command writes into is never positional: two folders in a row would be mistaken for each other.
    out = [field for field in fields(config) if command.positional and field.name == "out" and field.default is MISSING]
    skipped = {field.name for field in out}
    parser.add_class_arguments(config, as_group=False, as_positional=command.positional, skip=skipped)
    for field in out:
        parser.add_argument(f"--{field.name}", type=Path, required=True, help="Folder for what the command makes.")
    _polish(parser, getattr(config, "sections", {}))
    try:
        values = parser.parse_args(_join_lists(arguments, parser._actions))
    except argparse.ArgumentError as error:
        types = {action.dest: getattr(action, "_typehint", None) for action in parser._actions}
        raise UserError(_explain(error, name, arguments, types)) from error
    return config(**{field.name: values[field.name] for field in fields(config)})


def _load(location: str) -> Any:
    module, attribute = location.split(":")
    return getattr(importlib.import_module(f"videomac.{module}"), attribute)


def _print_help(names: Sequence[str] = ()) -> NoReturn:
    print("usage: videomac COMMAND [options]\n")
    print("Pre-train any timm ConvNet on your own unlabelled video.\n\ncommands:")
    width = max(len(name) for name in COMMANDS)
    for name in names or COMMANDS:
        print(f"  {name:<{width}}  {COMMANDS[name].help}")
    print("\n`videomac COMMAND --help` explains the options of a command; `videomac --version` prints the version.")
    sys.exit(0)


def _polish(parser: Any, sections: dict[str, str]) -> None:
    """Say what kind of value an option takes, head the sections; `--resume` alone means `--resume true`."""
    positionals, options, *_ = parser._action_groups
    for action in list(parser._actions):
        typehint = getattr(action, "_typehint", None)
        if typehint is bool:
            action.nargs, action.const, action.metavar = "?", True, "true|false"
        elif _is_list(typehint):
            action.metavar = f"{'NAME' if action.option_strings else 'PATH'} ..."
            action.option_strings = action.option_strings[:1]  # no `--name+`
        elif get_origin(typehint) is Literal:
            action.metavar = "|".join(map(str, get_args(typehint)))
        elif action.dest == "print_config":
            action.help = "print all options as YAML and exit"
        elif action.dest != "help":
            action.metavar = _METAVARS.get(typehint, "VALUE")
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys(sections.values())}
    group = options
    for action in list(options._group_actions):
        if action.dest in sections:
            group = groups[sections[action.dest]]
        if group is not options:
            options._group_actions.remove(action)
            group._group_actions.append(action)
    parser.usage = " ".join([parser.prog, *(action.metavar for action in positionals._group_actions)])


def _is_list(typehint: Any) -> bool:
    return list in (get_origin(typehint), *map(get_origin, get_args(typehint)))


def _join_lists(arguments: list[str], actions: Sequence[Any]) -> list[str]:
    """Write `--names a b` as `--names ["a", "b"]`, which is how jsonargparse takes lists."""
    lists = [action for action in actions if _is_list(getattr(action, "_typehint", None))]
    flags = {option for action in lists for option in action.option_strings}
    joined: list[str] = []
    # Words at the start belong to a positional list, if there is one.
    words: list[str] | None = [] if any(not action.option_strings for action in lists) else None
    for argument in [*arguments, "--"]:
        if words is not None and not argument.startswith("-"):
            words.append(argument)
            continue
        if words:
            joined.append(json.dumps(words) if not words[0].startswith("[") else words[0])
        words = [] if argument in flags else None
        joined.append(argument)
    return joined[:-1]


_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "NAME", Path: "PATH", None: "PATH"}
_METAVARS.update({kind | None: name for kind, name in _METAVARS.items() if kind is not None})


class _HelpFormatter(argparse.HelpFormatter):
    """Option, sentence, default: without the types that jsonargparse spells out."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)

    def _format_usage(self, usage: Any, actions: Any, groups: Any, prefix: Any) -> str:
        return f"usage: {usage} [options]\n\n"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").replace("%", "%%")
        if action.required:
            return f"{text} (required)"
        if action.default in (None, argparse.SUPPRESS, {}) or action.dest in ("help", "config", "print_config"):
            return text
        return (
            f"{text} (default: {str(action.default).lower() if isinstance(action.default, bool) else action.default})"
        )


def _suggestion(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain(error: argparse.ArgumentError, name: str, arguments: list[str], types: dict[str, Any]) -> str:
    """Return jsonargparse's complaint as one sentence that names the option or file and the cure."""
    text = " ".join(str(error).split())
    help_ = f"`videomac {name} --help` lists the options"
    if match := re.search(r"[Uu]nrecognized arguments: (\S+)", text):
        word = match.group(1).split("=")[0]
        if not word.startswith("-"):
            return f"unexpected argument {word!r}: options are written as --name value; {help_}"
        return f"unknown option {word}{_close_option(word, types, '--')}; {help_}"
    if match := re.search(r"Option '(\S+)' is not accepted", text):
        return f"unknown key {match.group(1)!r} in {_file(arguments)}{_close_option(match.group(1), types)}; {help_}"
    if match := re.search(r"arguments are required: (.+)", text):
        bare = types.keys() - {"out"} if COMMANDS[name].positional else set()
        missing = ", ".join(option if option in bare else f"--{option}" for option in match[1].split(", "))
        return f"missing {missing}; {help_}"
    if "File does not exist" in text:
        return f"--config: there is no file {_file(arguments)}"
    if match := re.search(r"Problems parsing config: (.+)", text):
        return f"{_file(arguments)} is not valid YAML: {match.group(1)}"
    if "Unexpected config" in text:
        return f"{_file(arguments)} must hold lines such as `epochs: 100`, one option each; {help_}"
    if (match := re.search(r'Parser key "(\w+)".*(?:Got|Given) value: (.*)$', text)) and match[1] in types:
        return f"{match.group(1)} must be {_wording(types[match.group(1)])}, but is {match.group(2)!r}"
    return f"{text.removeprefix('argument ')}; {help_}"


def _file(arguments: list[str]) -> str:
    """Return the file given to `--config`."""
    given = [
        word.partition("=")[2] or following
        for word, following in zip(arguments, [*arguments[1:], ""], strict=True)
        if word.split("=")[0] == "--config"
    ]
    return given[-1] if given else "the config file"


def _wording(typehint: Any) -> str:
    """Return a type in words: `int | None` as "a whole number or null"."""
    simple = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    if typehint in simple:
        return simple[typehint]
    if get_origin(typehint) is Literal:
        return "one of " + ", ".join(map(str, get_args(typehint)))
    if get_origin(typehint) is list:
        return "one or more: " + _wording(get_args(typehint)[0])
    if get_origin(typehint) is tuple:
        return "[" + ", ".join(map(_wording, get_args(typehint))) + "]"
    if get_args(typehint) and get_origin(typehint) is not dict:
        return " or ".join(map(_wording, get_args(typehint)))
    return {Path: "a path"}.get(typehint, "a mapping")


def _close_option(word: str, options: Any, prefix: str = "") -> str:
    close = difflib.get_close_matches(word.lstrip("-").replace("-", "_"), list(options), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
