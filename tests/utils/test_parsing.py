"""Options of a command, on a config of the test's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from videomac.errors import UserError
from videomac.utils import parsing


@dataclass
class Base:
    """A base."""

    runs: list[Path]
    """Folders of the base."""
    out: Path
    """Where to."""
    share: float = 0.5
    """Of 100 %."""


@dataclass
class Config(Base):
    """Do a thing."""

    sections: ClassVar[dict[str, str]] = {"kind": "kinds"}

    runs: list[Path]
    """Folders."""
    kind: Literal["a", "b"] = "a"
    """Which
    of two."""
    resume: bool = False
    """Go on."""
    names: list[str] = field(default_factory=list)
    """Only these."""
    limit: int | None = None
    """At most."""


def parse(*arguments: str, positional: bool = True) -> Any:
    return parsing.parse("thing", Config, arguments, positional=positional)


def test_lists_are_words_and_a_switch_needs_no_value() -> None:
    found = parse("x", "y", "--out", "z", "--names", "a", "b", "--resume", "--limit", "3")
    assert found == Config([Path("x"), Path("y")], Path("z"), resume=True, names=["a", "b"], limit=3)
    assert parse("x", "--resume", "false", "--out", "z") == Config([Path("x")], Path("z"))
    assert parse("--runs", "x", "y", "--out", "z", "--resume", positional=False).resume


def test_a_stored_config_may_say_which_command_wrote_it(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "config.yaml").write_text("command: thing\nruns: [x]\nout: z\nlimit: 4\n")
    arguments = ["--config", str(tmp_path / "config.yaml")]
    assert parse(*arguments, positional=False) == Config([Path("x")], Path("z"), limit=4)
    with pytest.raises(SystemExit):
        parse("--runs", "x", "--out", "z", "--print_config", positional=False)
    assert "limit: null" in capsys.readouterr().out


def test_help_has_the_sentences_of_the_class_and_its_bases() -> None:
    text = parsing.help_text("thing", Config, positional=True)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "usage: videomac thing PATH ... [options]" and "Do a thing." in lines
    assert "PATH ... Folders. (required)" in lines and "--out PATH Where to. (required)" in lines
    assert "--share X Of 100 %. (default: 0.5)" in lines and "--limit N At most." in lines
    heading = lines.index("kinds:")
    assert lines[heading + 1] == "--kind a|b Which of two. (default: a)"
    assert "--resume [true|false] Go on. (default: false)" in lines[heading:]
    assert "--names NAME ... Only these. (default: [])" in lines[heading:]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "z"], "missing runs; `videomac thing --help`"),
        (["x"], "missing --out; "),
        (["x", "--out", "z", "--limits", "3"], "unknown option --limits; did you mean --limit?"),
        (["x", "--out", "z", "--limit", "few"], "limit must be a whole number or null, but is 'few'"),
        (["x", "--out", "z", "--kind", "c"], "kind must be one of a, b, but is 'c'"),
        (["x", "--out", "z", "--resume", "maybe"], "resume must be true or false, but is 'maybe'"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        parse(*arguments)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("word", "known", "names"),
    [
        ("batch_size", ["patch_size", "global_batch_size"], ["global_batch_size"]),
        ("mobilenetv4", ["mobilenetv2_140", "x_mobilenetv4", "mobilenetv4_small"], ["mobilenetv4_small"]),
        ("bacbone", ["backbone", "block"], ["backbone"]),
        ("zebra", ["backbone", "epochs"], []),
    ],
)
def test_a_suggestion_begins_with_the_word_or_contains_it_or_is_like_it(
    word: str, known: list[str], names: list[str]
) -> None:
    assert parsing.close_names(word, known, 1) == names


def test_only_public_attributes_of_the_parsers_are_used() -> None:
    """Those that begin with an underscore may change with any version."""
    assert not re.findall(r"\w\._[a-z]\w*", Path(parsing.__file__).read_text())
