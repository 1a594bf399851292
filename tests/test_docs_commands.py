"""Every command of the pages on export, figures and report runs, on small data."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

import videomac
from videomac import cli
from videomac.data.synthetic import moving_shapes
from videomac.evaluate.synthetic import scene, write_davis, write_jhmdb, write_vip
from videomac.exporting import command as export
from videomac.utils.video_writer import write_video

ROOT = Path(__file__).parents[1]
PAGES = ("export", "figures", "report")


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        for block in re.findall(r"^```bash\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                yield page, shlex.split(line)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages speak of: videos, runs that differ in gamma, evaluations, a frame."""
    root = tmp_path_factory.mktemp("docs")
    (root / "my_videos").mkdir()
    for name in ("clip", "other"):
        write_video(root / "my_videos" / f"{name}.mp4", moving_shapes(10, (64, 96), seed=len(name))[0])
    Image.fromarray(moving_shapes(1, (64, 96))[0][0].permute(1, 2, 0).numpy()).save(root / "frame.png")
    mine = root / "runs" / "mine"
    videomac.pretrain(
        data=root / "my_videos", backbone="test_convnext", out=mine, image_size=64, epochs=1, global_batch_size=8,
        decoder_width=8, held_out=0, workers=0, trainer={"accelerator": "cpu"},
    )  # fmt: skip
    for gamma in (0.0, 0.5):
        other = shutil.copytree(mine, root / "runs" / f"gamma{gamma:g}")
        settings = yaml.safe_load((other / "config.yaml").read_text())
        (other / "config.yaml").write_text(yaml.safe_dump({**settings, "gamma": gamma}))
    scenes = {"one": scene(3, (64, 96))}
    write_davis(root / "DAVIS", scenes)
    write_vip(root / "VIP", scenes)
    write_jhmdb(root / "JHMDB", {"walk/one": scenes["one"]})
    for benchmark in ("davis", "vip", "jhmdb"):
        evaluate: Callable[..., object] = getattr(videomac.evaluate, benchmark)
        evaluate(mine, data=root / benchmark.upper(), out=root / "eval" / benchmark, size="64x96", stride=16)
    return root


def test_every_command_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    pushed = []
    monkeypatch.setattr(export, "push", lambda out, repo: pushed.append((out, repo)) or repo)  # its own test has a hub
    made = []
    for page, words in commands():
        if words[0] != "videomac":
            continue
        made.append(words[1])
        if words[-1] in ("onnx", "torch_export"):  # slow to trace: tests/exporting runs these
            assert cli.parse(words[1], words[2:]).format == words[-1]
            continue
        if words[1] == "figures":
            words += ["--masks", "2", "--pairs", "1"]
        with pytest.raises(SystemExit) as ended:
            cli.main(words[1:])
        assert not ended.value.code, f"docs/{page}.md: {shlex.join(words)}"
    assert set(made) == set(PAGES) and len(made) >= 11
    assert pushed == [(Path("exported/hub"), "someone/convnextv2-atto-video")]
    assert Path("figures/curves/fig7.png").is_file() and Path("figures/fig4.png").is_file()


def test_the_scripts_of_the_pages_exist() -> None:
    scripts = [words[1] for _, words in commands() if words[0] == "python"]
    assert len(scripts) == 3 and all((ROOT / script).is_file() for script in scripts)


@pytest.mark.slow
def test_every_script_runs_as_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy
    import sys

    monkeypatch.chdir(place)
    for _, words in commands():
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
    assert Path("neighbours.png").is_file()
