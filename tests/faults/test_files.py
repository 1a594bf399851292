"""Damaged files of runs, weights that are none, and pickles that would run code."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.classify.folders import write_images
from tests.faults.mutate import answer, damaged, summary
from videomac import evaluate
from videomac.evaluate import synthetic

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def whole(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pre-training, an evaluation of raw pixels, a data set and a labelled frame."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(small_run, folder / "run")
    scene = synthetic.scene(4, (48, 64), num_objects=1)
    davis = synthetic.write_davis(folder / "davis", {"a": scene, "b": scene})
    settings: dict[str, Any] = {"videos": False, "stride": 4, "topk": 2}
    evaluate.davis("raw-pixels", data=davis, out=folder / "eval", size="native", **settings)
    write_images(folder / "images")
    return folder


def commands(here: Path, out: Path, clips: Path) -> dict[str, tuple[str, list[str]]]:
    """The commands that read each folder: which folder is damaged, and the words."""
    run, davis, cpu = here / "run", here / "davis", "--device=cpu"
    native = ["--size=native", "--videos=false", "--stride=4", "--topk=2", cpu]
    video = str(next(iter(sorted(clips.glob("*.mp4")))))
    return {
        "compare": ("eval", ["compare", str(here / "eval")]),
        "report": ("run", ["report", str(run), "--include", str(here / "eval"), "--overwrite"]),
        "report of an evaluation": ("eval", ["report", str(run), "--include", str(here / "eval"), "--overwrite"]),
        "export": ("run", ["export", str(run), f"--out={out}"]),
        "export of weights": ("run/backbone", ["export", str(run / "backbone"), f"--out={out}"]),
        "figures": ("run", ["figures", str(run), f"--out={out}"]),
        "eval --resume": (
            "eval",
            [
                "eval",
                "davis",
                f"--data={davis}",
                "--backbone=raw-pixels",
                f"--out={here / 'eval'}",
                "--resume",
                *native,
            ],
        ),
        "eval of weights": (
            "run/backbone",
            ["eval", "davis", f"--data={davis}", f"--backbone={run / 'backbone'}", f"--out={out}", *native],
        ),
        "eval of damaged data": (
            "davis",
            ["eval", "davis", f"--data={davis}", "--backbone=raw-pixels", f"--out={out}", *native],
        ),
        "score": (
            "eval/predictions",
            ["score", "davis", f"--data={davis}", f"--predictions={here / 'eval/predictions'}"],
        ),
        "reconstruct": (
            "run/checkpoints",
            ["reconstruct", f"--checkpoint={run}", f"--video={video}", f"--out={out}", cpu],
        ),
    }


def try_many(seed: int, count: int, whole: Path, clips: Path, folder: Path) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        here, out = folder / f"case{number}", folder / f"case{number}" / "out"
        shutil.copytree(whole, here)
        found = commands(here, out, clips)
        name = sorted(found)[number % len(found)]
        where, words = found[name]
        files = sorted(path for path in (here / where).rglob("*") if path.is_file())
        file = draw.choice(files)
        file.write_bytes(damaged(file.read_bytes(), draw))
        kind, said = answer(words)
        counts[kind] += 1
        if kind == "failed":
            failures.append(f"case {number}, {name}, {file.relative_to(here)}: {said}")
        shutil.rmtree(here)
    return counts, failures


def test_some_damaged_files(whole: Path, clips: Path, tmp_path: Path) -> None:
    counts, failures = try_many(0, 22, whole, clips, tmp_path)
    assert not failures, "\n".join(failures[:5])
    assert counts["refused"]


@pytest.mark.faults
def test_hundreds_of_damaged_files(whole: Path, clips: Path, tmp_path: Path, seed: int) -> None:
    counts, failures = try_many(seed + 1, 500, whole, clips, tmp_path)
    print(summary("files", counts, failures))
    assert not failures, "\n".join(failures[:20])


class Bomb:
    """A pickle of this makes a folder where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def bombs(folder: Path, mark: Path) -> list[Path]:
    """Pickles with code: plain, in the zip that torch.save writes, and under the names of other formats."""
    folder.mkdir()
    plain = pickle.dumps({"state_dict": Bomb(mark)})
    (folder / "plain.ckpt").write_bytes(plain)
    (folder / "model.safetensors").write_bytes(plain)
    with zipfile.ZipFile(folder / "zip.ckpt", "w") as file:
        file.writestr("archive/data.pkl", plain)
        file.writestr("archive/version", "3")
    shutil.copy(folder / "zip.ckpt", folder / "mac-bomb.pth")
    return sorted(folder.iterdir())


def test_no_code_in_a_file_is_run(clips: Path, tmp_path: Path) -> None:
    mark, images = tmp_path / "mark", write_images(tmp_path / "images")
    davis = synthetic.write_davis(tmp_path / "davis", {"a": synthetic.scene(3, (48, 64), num_objects=1)})
    video = str(next(iter(sorted(clips.glob("*.mp4")))))
    label = str(next(iter(sorted((davis / "Annotations").rglob("*.png")))))
    cpu = "--device=cpu"
    for bomb in bombs(tmp_path / "bombs", mark):
        out = f"--out={tmp_path / 'out'}"
        for words in (
            ["export", str(bomb), out],
            ["reconstruct", f"--checkpoint={bomb}", f"--video={video}", out, cpu],
            ["eval", "davis", f"--data={davis}", f"--backbone={bomb}", out, cpu],
            ["eval", "davis", f"--data={davis}", "--backbone=resnet18", f"--weights={bomb}", out, cpu],
            ["probe", f"--data={images}", f"--backbone={bomb}", out, cpu],
            ["finetune", f"--data={images}", f"--backbone={bomb}", out, "--trainer.accelerator=cpu"],
            ["pretrain", f"--data={clips}", "--backbone=test_convnext", f"--init_from={bomb}", out, "--recipe=small"],
            ["propagate", video, f"--labels={label}", f"--backbone={bomb}", out, cpu],
            ["features", video, f"--backbone={bomb}", out, cpu],
        ):
            kind, said = answer(words)
            assert not mark.exists(), f"{words[0]} ran what is in {bomb.name}"
            assert kind == "refused", f"{words}: {said}"
