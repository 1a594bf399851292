"""The house in order: imports point one way, the version is one, README and docs promise nothing that is not there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
import yaml

import videomac
from videomac import cli
from videomac.classify.config import FinetuneConfig, ProbeConfig
from videomac.train.config import PretrainConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which pytest brings along

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "videomac"
TESTS = ROOT / "tests"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(page for folder in ("docs", "configs", "examples") for page in (ROOT / folder).rglob("*.md")),
    ]
)


# Imports --------------------------------------------------------------------------------------------------------------


def test_imports_point_one_way() -> None:
    """`[tool.importlinter]` of pyproject.toml says who may import whom."""
    lint_imports = Path(sys.executable).with_name("lint-imports")
    if not lint_imports.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, videomac; assert not {'torch', 'timm', 'numpy', 'lightning', 'av'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_exists() -> None:
    for name in videomac.__all__:
        assert getattr(videomac, name) is not None


# The tree -------------------------------------------------------------------------------------------------------------


OF_NO_MODULE = {
    *("test_house.py", "test_docs_commands.py", "test_docs_method.py", "test_examples.py"),  # of the repository
    "test_portability.py",  # what other systems lack
    "sparse/test_engine.py",  # blocks against masked dense: all of the package's modules together
    *(
        "sparse/test_compile.py",
        "sparse/test_triton_compile.py",
        "train/test_gpu.py",
    ),  # by a compiler, on a GPU
    *("sparse/test_meta.py", "evaluate/test_meta.py"),  # nothing is read back from the device
    *("labeling/test_faults.py", "labeling/test_memory.py"),  # damaged labels of every kind; what a long video holds
}
"""Tests that are of more than one module."""


def test_tests_mirror_the_modules() -> None:
    found = {file.relative_to(TESTS).as_posix() for file in TESTS.rglob("test_*.py")}
    assert found >= OF_NO_MODULE
    for name in found - OF_NO_MODULE:
        if name.startswith("faults/"):  # what is done to the whole
            continue
        assert (SOURCE / name.replace("test_", "", 1)).is_file(), f"tests/{name} is of no module"


def test_no_file_is_longer_than_500_lines() -> None:
    for file in (*SOURCE.rglob("*.py"), *TESTS.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").count("\n")
        assert lines <= 500, f"{file.relative_to(ROOT)} has {lines} lines"


def test_every_module_has_its_layer() -> None:
    """Where import-linter is missing, this still tells of a new package that nobody has put into its place."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (contract for contract in settings["contracts"] if contract["type"] == "layers")
    assert contract["exhaustive"]
    layers = [name for layer in contract["layers"] for name in re.split(r" [|:] ", layer)]
    modules = [path.stem for path in SOURCE.glob("*.py") if path.name != "__init__.py"]
    packages = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    assert sorted([*layers, *contract["exhaustive_ignores"]]) == sorted([*modules, *packages])


# One version ----------------------------------------------------------------------------------------------------------


def test_the_version_is_one() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == videomac.__version__
    project = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project and 'path = "src/videomac/__init__.py"' in project
    releases = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0] == "Unreleased" and releases[1:2] in ([], [videomac.__version__])


# README and docs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def code_blocks(*languages: str) -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            if match[1] in languages:
                yield Block(page, text[: match.start()].count("\n") + 1, match[1], match[2])


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command in a shell block of README and docs, with its place."""
    for block in code_blocks("bash", "sh", ""):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield f"{block}: {' '.join(words)}", words


def test_every_command_of_readme_and_docs_parses() -> None:
    parsed = set()
    for place, words in command_lines():
        if "videomac" not in words or words[0] == "pip":
            continue
        name, options = cli.find_command(words[words.index("videomac") + 1 :])
        if "--help" in options:
            continue
        if "--config" in options:
            at = options.index("--config") + 1
            if (ROOT / options[at]).is_file():
                options[at] = str(ROOT / options[at])
            else:  # a run's own, which holds what is required
                options[at - 1 : at + 1] = ["--data", "videos", "--backbone", "resnet18", "--out", "out"]
        try:
            cli.parse(name, options)
        except videomac.UserError as error:
            pytest.fail(f"{place}\n{error}")
        parsed.add(name)
    assert parsed >= {"pretrain", "reconstruct"}


def test_every_make_target_of_readme_and_docs_exists_and_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, flags=re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony and set(phony[1].split()) == explained
    used = {words[1] for _, words in command_lines() if words[0] == "make"}
    for page in PAGES:
        used |= set(re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8")))
    assert {"demo", "test"} <= used <= explained


def test_options_written_in_text_exist() -> None:
    configs = [cli._load(command.config) for command in cli.COMMANDS.values()]
    known = {field.name for config in configs for field in fields(config)} | {"config", "help", "version"}
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for option in re.findall(r"`--([a-z_]+)[ `]", text):
            assert option in known, f"{page.name}: --{option}"


@pytest.mark.parametrize("block", list(code_blocks("python")), ids=str)
def test_every_python_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks run as they stand, beside a finished run; of training and evaluation only the options are checked."""
    from videomac.models.checkpoint import save_backbone

    monkeypatch.chdir(tmp_path)
    model = videomac.VideoMAC("convnextv2_atto", decoder_width=16)
    save_run(model, tmp_path / "runs" / "mine")
    save_backbone(model, tmp_path / "runs" / "mine" / "backbone", name="convnextv2_atto")
    monkeypatch.setattr(videomac, "pretrain", PretrainConfig)
    monkeypatch.setattr(videomac, "finetune", FinetuneConfig)
    monkeypatch.setattr(videomac, "probe", lambda **options: asdict(ProbeConfig(**options)) | PROBED)
    for benchmark in ("davis", "vip", "jhmdb"):
        monkeypatch.setattr(f"videomac.evaluate.benchmarks.{benchmark}.run", lambda config: {})
    text = block.text.replace("convnextv2_tiny", "convnextv2_atto")  # the same, quicker
    exec(compile(text, str(block), "exec"), {"__name__": "__main__"})


PROBED = {"knn_top1": 0.5, "linear_top1": 0.5}


def save_run(model: videomac.VideoMAC, out: Path) -> None:
    """Write what `load_backbone` needs of a run."""
    import torch

    (out / "checkpoints").mkdir(parents=True)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "videomac": {**model.arguments}}, out / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]:
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"^ +- (?:.+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert sorted(listed) == sorted(pages)


# Nothing of one machine -----------------------------------------------------------------------------------------------


def tracked_files() -> list[Path]:
    try:
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in names.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_nothing_names_a_path_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users|mnt|opt)/\w")
    for file in tracked_files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            assert not pattern.search(line), f"{file.relative_to(ROOT)}:{number}: {line.strip()}"


def test_no_large_file_is_tracked() -> None:
    large = [path.name for path in tracked_files() if path.stat().st_size > 2**20]
    assert not large
