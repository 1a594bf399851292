"""The command line: the table of commands, and how one of them is run.

Every command is a config dataclass (its flags, YAML keys and help) and a function that takes it, named by its module so
that torch is imported only when the command runs.
"""

from __future__ import annotations

import importlib
import io
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
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
    "prepare": Command(
        "prepare.config:PrepareConfig", "prepare.command:run", "cut footage into clips that train fast, anywhere", True
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
    "app": Command("app.config:AppConfig", "app.command:run", "all of this with the mouse, in the browser"),
    "study": Command(
        "study.config:StudyConfig", "study.command:run", "a table of runs: pre-train, judge, compare", True
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
    "eval cycle": Command(
        "evaluate.config:EvalCycleConfig", "evaluate.cycle_command:run", "what training brought, without labels"
    ),
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
    """Run one command and exit.

    The status is 0: done; 1: a check failed, or a bug of ours; 2: bad input, or a machine that lacks something (one
    sentence, no traceback); 130: Ctrl-C; 141: whoever read the output has gone.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Before torch is loaded: OpenMP threads that wait by spinning take the cores from data workers and other programs,
    # which made training on a busy CPU up to ten times slower; sleeping costs nothing that could be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # Into a file or pipe, Windows writes in a code page that lacks most letters: a name must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status: str | int | None = _guarded(arguments)
    except SystemExit as exit_:  # after --help, or of a command whose check failed
        status = exit_.code
    with suppress(OSError, ValueError):  # so that a pipe without a reader is found here, and not when Python ends
        sys.stdout.flush()
    sys.exit(141 if _reader_has_gone() else status)


def _guarded(arguments: list[str]) -> int:
    """Run one command; whatever it raises becomes one sentence and a status."""
    try:
        name, rest = find_command(arguments)
        config = parse(name, rest)
        _load(COMMANDS[name].function)(config)
    except UserError as error:
        return _say("videomac: error", error, 2)
    except KeyboardInterrupt as interrupt:
        print(f"\nvideomac: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130
    except Exception as error:  # the last fence: what comes here is ours to mend, or the machine's
        if _reader_has_gone():  # `videomac ... | head` has seen what it wanted
            return 141
        from videomac.utils import fence

        if (sentence := fence.of_the_machine(error)) is not None:
            return _say("videomac: error", sentence, 2)
        return _say("videomac: bug", fence.report(error, arguments), 1)
    return 0


def _say(kind: str, sentence: object, status: int) -> int:
    print(f"{kind}: {' '.join(str(sentence).split())}", file=sys.stderr)
    return status


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more; then what is left of it goes nowhere."""
    try:
        place = sys.stdout.fileno()
        if not hasattr(select, "poll"):  # Windows has no such pipes
            return False
        poll = select.poll()
        poll.register(place, select.POLLERR)
        gone = any(event & select.POLLERR for _, event in poll.poll(0))
        if gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), place)
        return gone
    except (OSError, ValueError):  # it is closed, or no file at all
        return False


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
