"""The built wheel alone, in a fresh environment: README's Python, the help of every command, and the demo.

python tests/wheel/check.py newest|oldest [FOLDER]

"oldest" installs the lowest versions that pyproject.toml allows. The script prints what it does, and exits with
status 1 at the first failure.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESOLUTIONS = {"newest": "highest", "oldest": "lowest-direct"}
SMALL_TRAINING = """
import functools, videomac
videomac.pretrain = functools.partial(
    videomac.pretrain, recipe="small", steps=1, image_size=64, global_batch_size=4, held_out=0, decoder_width=16,
    workers=0, trainer={"accelerator": "cpu"},
)
from videomac.data.synthetic import moving_shapes
from videomac.utils.video_writer import write_video
write_video("my_videos/a.mp4", moving_shapes(24, (72, 96))[0])
"""
"""What README's Python needs: a folder of videos, and options with which training takes seconds."""


def install(versions: str, folder: Path) -> Path:
    """Build the wheel, install it with its demo, and return the folder of its programs."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    tool, fresh = folder / "tool", folder / versions
    run(sys.executable, "-m", "venv", tool)
    run(programs(tool) / "python", "-m", "pip", "install", "-q", "uv")
    uv = programs(tool) / "uv"
    run(uv, "venv", "-q", "--python", sys.executable, fresh)
    python = programs(fresh) / "python"
    # The requirements by themselves: those of a wheel are indirect to uv, which then takes their newest versions.
    asked = ["-r", ROOT / "pyproject.toml", "--extra", "demo", "--resolution", RESOLUTIONS[versions]]
    run(uv, "pip", "install", "-q", "--python", python, *asked)
    run(uv, "pip", "install", "-q", "--python", python, "--no-deps", wheel)
    run(uv, "pip", "check", "--python", python)
    installed = run(uv, "pip", "freeze", "--python", python).splitlines()
    if versions == "oldest":
        require_oldest(installed)
    return programs(fresh)


def require_oldest(installed: list[str]) -> None:
    """Fail unless every requirement is there in the version that stands in pyproject.toml."""
    table = re.search(
        r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    found = dict(line.split("==") for line in installed if "==" in line)
    for name, version in re.findall(r'"([\w-]+)(?:\[\w+\])?>=([\d.]+)"', table[1]):
        have = found[name.replace("_", "-")]
        assert re.match(rf"{re.escape(version)}(\.0)*(\.post\d+)?$", have), (
            f"{name} {have} was installed, not {version}"
        )


def check(bin_: Path, folder: Path) -> None:
    """Everything that the wheel must do, away from the checkout."""
    listed = run(bin_ / "videomac", "--help", cwd=folder)
    commands = re.findall(r"^  (\w+(?: \w+)?)  ", listed, flags=re.MULTILINE)
    assert len(commands) > 15, commands
    for command in commands:
        run(bin_ / "videomac", *command.split(), "--help", cwd=folder)
    (folder / "my_videos").mkdir()
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    run(bin_ / "python", "-c", SMALL_TRAINING + "".join(blocks), cwd=folder)
    run(bin_ / "videomac", "demo", "--out", folder / "demo run", cwd=folder)
    run(bin_ / "videomac", "report", folder / "demo run", cwd=folder)


def programs(environment: Path) -> Path:
    """The folder of an environment's programs."""
    return environment / ("Scripts" if os.name == "nt" else "bin")


def run(*words: object, cwd: Path | None = None) -> str:
    """Run a program and return what it says; stop everything if it fails."""
    shown = " ".join(map(str, words))
    print(f"$ {shown if len(shown) < 200 else shown[:60] + ' ...'}", flush=True)
    ended = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{ended.stdout}\n{ended.stderr}\nfailed with status {ended.returncode}")
    if "--help" not in words:
        print(ended.stdout, end="", flush=True)
    return ended.stdout


def main(versions: str, folder: str | None = None) -> None:
    """Check the wheel with these versions, in a folder that is kept, or in one that is not."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary).resolve()
        place.mkdir(parents=True, exist_ok=True)
        bin_ = install(versions, place)
        check(bin_, place)
    print(f"the wheel works with the {versions} versions")


if __name__ == "__main__":
    main(*sys.argv[1:])
