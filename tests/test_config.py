"""What a run stores about itself, and how it is read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomac import cli
from videomac.bench.config import BenchConfig
from videomac.classify.config import FinetuneConfig, ProbeConfig
from videomac.config import read_config, save_config
from videomac.errors import UserError
from videomac.exporting.config import ExportConfig
from videomac.figures.config import FiguresConfig
from videomac.reconstruction.config import ReconstructConfig
from videomac.train.config import PretrainConfig

STORED = [
    *(BenchConfig, ExportConfig, FiguresConfig, FinetuneConfig, PretrainConfig, ProbeConfig, ReconstructConfig),
]


@pytest.mark.parametrize("kind", STORED)
def test_a_stored_config_names_the_command_that_takes_it(kind: type) -> None:
    module, _, name = cli.COMMANDS[kind.command].config.partition(":")
    assert kind.__module__ == f"videomac.{module}" and kind.__name__ == name


def test_the_command_reads_its_own_config_back(tmp_path: Path) -> None:
    before = ProbeConfig(data=Path("images"), backbone="resnet18", out=tmp_path, overwrite=True)
    save_config(before)
    stored = read_config(tmp_path, "probe")
    assert stored["command"] == "probe" and stored["backbone"] == "resnet18" and stored["overwrite"] is False
    again = cli.parse("probe", ["--config", str(tmp_path / "config.yaml")])
    assert again == ProbeConfig(data=Path("images"), backbone="resnet18", out=tmp_path)


@pytest.mark.parametrize("command", ["eval davis", "eval vip"])
def test_eval_stands_for_all_benchmarks(tmp_path: Path, command: str) -> None:
    (tmp_path / "config.yaml").write_text(f"command: {command}\n")
    assert read_config(tmp_path, "eval") == read_config(tmp_path) == {"command": command}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"holds no run \(no config.yaml\): name a folder that `videomac pretrain` wrote"),
        ("a: [1", "config.yaml cannot be read"),
        ("- pretrain", "does not say which command"),
        ("gamma: 1", "does not say which command"),
        ("command: ''", "was made by `videomac `"),
        ("command: eval davis", "was made by `videomac eval davis`: name a folder that `videomac pretrain` wrote"),
    ],
)
def test_a_folder_of_something_else_is_refused_in_one_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence) as refused:
        read_config(tmp_path, "pretrain")
    assert "\n" not in str(refused.value)
