"""The command line: the table of commands, and how one of them is run.

Every command is a config dataclass (its flags, YAML keys and help) and a function that takes it, named by its module so
that torch is imported only when the command runs.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from videomac.errors import UserError
from videomac.utils import parsing


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
        "reconstruction.config:ReconstructConfig",
        "reconstruction.command:run",
        "show a network's reconstructions of a video",
    ),
    "propagate": Command("labeling.config:PropagateConfig", "labeling.command:run", "label the rest of a video", True),
    "features": Command(
        "labeling.config:FeaturesConfig", "labeling.feature_video:run", "show what backbones see in a video", True
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
        "inspection.config:InspectConfig",
        "inspection.command:run",
        "show how each layer of a network is computed",
        True,
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
    for stream in (sys.stdout, sys.stderr):
        # Into a file or pipe, Windows writes in a code page that lacks most letters: a name must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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
    raise UserError(
        f"unknown command {typed!r}{parsing.suggestion(typed, COMMANDS)}; `videomac --help` lists the commands"
    )


def parse(name: str, arguments: Sequence[str]) -> Any:
    """Turn the options of command `name` into its config dataclass; print them all for `--help`.

    Raises:
        UserError: an option is unknown, missing, of the wrong type, or refused by the config.
    """
    command = COMMANDS[name]
    config = _load(command.config)
    if {"-h", "--help"} & set(arguments):
        print(parsing.help_text(name, config, positional=command.positional), end="")
        sys.exit(0)
    return parsing.parse(name, config, arguments, positional=command.positional)


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
