from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.study.conftest import pretend
from videomac import cli
from videomac.errors import UserError
from videomac.evaluate import synthetic
from videomac.study import command, one, processes
from videomac.study.config import StudyConfig
from videomac.study.estimate import Estimate
from videomac.study.plan import Study, read_study
from videomac.study.runs import runs_of
from videomac.study.store import settle

TABLE_3D = Path(__file__).parents[2] / "configs" / "studies" / "small" / "table3d_masks.yaml"
TOY: dict[str, Any] = {
    **yaml.safe_load(TABLE_3D.read_text(encoding="utf-8")),
    "base": {
        "backbone": "test_convnext",
        "image_size": 64,
        "mask_ratio": 0.5,
        "decoder_width": 16,
        "steps": 4,
        "global_batch_size": 8,
        "base_lr": 8e-2,
        "workers": 0,
        "held_out": 0,
        "trainer": {"accelerator": "cpu"},
    },
    "seeds": [0],
    "davis": {"stages": [2, 1], "size": "48x80", "stride": 8, "radius": 3, "device": "cpu"},
}


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = {name: synthetic.scene(4, (48, 80), seed=seed) for seed, name in enumerate("ab")}
    return synthetic.write_davis(tmp_path_factory.mktemp("davis"), scenes)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    return tmp_path / "toy.yaml"


def make(**options: Any) -> list[Any]:
    return command.run(StudyConfig(**options))


def table_of(**options: Any) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        make(**options)
    return said.getvalue()


def test_a_study_from_its_file_to_its_page(toy: Path, clips: Path, davis: Path, tmp_path: Path) -> None:
    options = {"study": toy, "data": clips, "benchmark": davis, "out": tmp_path / "out", "jobs": 2}
    said = table_of(**options)
    for name in (
        "table.md",
        "table.csv",
        "table.json",
        "runs.csv",
        "study.png",
        "report.html",
        "config.yaml",
        "metrics.json",
    ):
        assert (tmp_path / "out" / name).is_file(), name
    assert "| symmetric | 68.4 |" in said
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "asymmetric" in page
    assert "data:image/png" in page
    assert "has not finished" not in page
    assert read_study(tmp_path / "out" / "config.yaml") == read_study(toy)
    # Again: nothing is made, and the same comes out.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("metrics.json")}
    assert len(before) == 2 * 3
    again = table_of(**{**options, "data": tmp_path / "gone", "benchmark": tmp_path / "gone"})
    assert "2 of 2 runs are done already" in again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("metrics.json")} == before
    gathered = table_of(study=toy, out=tmp_path / "out", gather=True)
    assert gathered in again
    _a_judgement_that_was_cut_short_is_made_again(toy, clips, davis, tmp_path / "out")


def _a_judgement_that_was_cut_short_is_made_again(toy: Path, clips: Path, davis: Path, out: Path) -> None:
    plan = read_study(toy)
    first = next(runs_of(plan, out))
    numbers = first.judgement(2) / "metrics.json"
    whole = numbers.read_bytes()
    finished = [folder / "metrics.json" for folder in (first.pretraining, first.judgement(1))]
    before = [path.stat().st_mtime_ns for path in finished]
    numbers.unlink()
    assert first.missing(plan) == [first.judgement(2)]
    assert one.main([str(out), "symmetric", "0", str(clips), str(davis)]) == 0
    assert numbers.read_bytes() == whole
    assert [path.stat().st_mtime_ns for path in finished] == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"backbone": "test_convnex"}, "test_convnex"),
        ({"mask_ratio": 0.99}, "leaves none of"),
        ({"image_size": 100}, "does not divide into patches"),
        ({"frame_gap": 1000}, "1000"),
        ({"global_batch_size": 10_000}, "training pairs"),
    ],
)
def test_a_row_that_cannot_be_run_is_refused_before_anything_runs(
    clips: Path, davis: Path, tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    rows = [{"name": "first"}, {"name": "typo", "options": options}]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**TOY, "rows": rows}))
    with pytest.raises(UserError, match=rf"row 'typo' of .*study.yaml cannot be run: .*{reason}"):
        make(study=tmp_path / "study.yaml", data=clips, benchmark=davis, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_benchmark_or_data_that_cannot_serve_are_refused(toy: Path, clips: Path, davis: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for changes, match in (
        ({"benchmark": tmp_path / "empty"}, "not in DAVIS layout"),
        ({"data": tmp_path / "empty"}, "empty"),
        ({"data": tmp_path / "none"}, "none"),
    ):
        with pytest.raises(UserError, match=match):
            make(**{"study": toy, "data": clips, "benchmark": davis, "out": tmp_path / "out", **changes})
    lonely = {**TOY, "davis": {**TOY["davis"], "sequences": ["a"]}}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(lonely))
    with pytest.raises(UserError, match="one sequence, which gives no interval"):
        make(study=tmp_path / "one.yaml", data=clips, benchmark=davis, out=tmp_path / "out")
    (tmp_path / "probe.yaml").write_text(yaml.safe_dump({**TOY, "probe": {"k": 3}}))
    with pytest.raises(UserError, match="name a folder of images with --images"):
        make(study=tmp_path / "probe.yaml", data=clips, benchmark=davis, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_plan_and_leaves_nothing(
    toy: Path, clips: Path, davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(study=toy, data=clips, benchmark=davis, out=tmp_path / "out", dry_run=True) == []
    said = capsys.readouterr().out
    assert "asymmetric: symmetric: False" in said
    assert "2 runs in this part, 2 of them to be made" in said
    assert "takes 4 steps" in said
    assert "judgement of 8 frames" in said
    assert not (tmp_path / "out").exists()


def test_how_long_a_study_takes_is_that_of_its_missing_runs_over_the_jobs(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study.as_plain()))
    pretend(study, tmp_path / "out", seeds=(1,))  # three of six runs
    monkeypatch.setattr(command, "_require_inputs", lambda *_: None)
    monkeypatch.setattr(command, "estimate", lambda *_: Estimate(100, 0.5, 20, 2.5))
    options = {"data": tmp_path, "benchmark": tmp_path, "out": tmp_path / "out", "jobs": 2, "dry_run": True}
    make(study=tmp_path / "study.yaml", **options)
    said = capsys.readouterr().out
    assert "6 runs in this part, 3 of them to be made, 2 at a time." in said
    assert "takes 100 steps of 0.50 s, and the judgement of 20 frames at 2.500 s: about 0:01:40." in said
    assert "All of them: about 0:02:30." in said


def test_parts_make_every_run_once_and_gather_makes_the_table(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study.as_plain()))
    made: list[str] = []
    monkeypatch.setattr(command, "_require_inputs", lambda *_: None)
    monkeypatch.setattr(command, "make_all", lambda _, runs, *__: made.extend(run.name for run in runs) or [])
    for part in range(4):
        options = {"data": tmp_path, "benchmark": tmp_path, "out": tmp_path / "out", "part": f"{part}/4"}
        assert make(study=tmp_path / "study.yaml", **options) == []
    assert sorted(made) == sorted(run.name for run in runs_of(study, tmp_path / "out"))
    with pytest.raises(UserError, match=r"no run in .* has been judged yet"):
        make(study=tmp_path / "study.yaml", out=tmp_path / "out", gather=True)
    pretend(study, tmp_path / "out", seeds=(0,))
    capsys.readouterr()
    assert len(make(study=tmp_path / "study.yaml", out=tmp_path / "out", gather=True)) == 3
    assert "3 of 6 runs are missing." in capsys.readouterr().out
    assert not (tmp_path / "out" / "metrics.json").exists(), "its table is not the last word"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "missing --data"),
        (["--data=clips"], "missing --benchmark"),
        (["--data=clips", "--benchmark=d", "--jobs=0"], "jobs must be at least 1"),
        (["--data=clips", "--benchmark=d", "--part=4/4"], "part must be i/n"),
        (["--gather", "--dry_run"], "exclude each other"),
        (["--data=s3://clips", "--benchmark=d"], "URLs are not read"),
    ],
)
def test_options_that_cannot_work_are_refused(words: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        cli.parse("study", ["study.yaml", "--out=out", *words])


def test_a_run_that_fails_stops_no_other(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(study, tmp_path)
    config = StudyConfig(study=tmp_path, data=tmp_path / "none", benchmark=tmp_path / "none", out=tmp_path, jobs=2)
    monkeypatch.setattr(processes, "SECONDS", 0.05)
    _replace_program(
        monkeypatch, tmp_path, "import sys; print('step 3/4, epoch'); sys.exit('gamma' if sys.argv[2] == 'deep' else 0)"
    )
    heard: list[str] = []
    runs = [run for run in runs_of(study, tmp_path) if run.seed == 0]
    failures = processes.make_all(config, runs, 3, heard.append)
    assert [(failure.run.name, failure.reason.partition(" (see")[0]) for failure in failures] == [
        ("deep, seed 0", "gamma")
    ]
    assert sorted(said.partition(" is")[0].partition(" failed")[0] for said in heard) == sorted(
        run.name for run in runs
    )


def _replace_program(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Let runs be made by another program."""
    (folder / "program.py").write_text(text)
    start = subprocess.Popen

    def popen(words: list[str], **options: Any) -> Any:
        return start([sys.executable, str(folder / "program.py"), *words[3:]], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", popen)


def test_told_to_stop_a_study_lets_its_runs_save(study: Study, tmp_path: Path) -> None:
    """The runs end after SIGTERM, and when the study is killed."""
    settle(study, tmp_path)
    child = (
        "import os, pathlib, signal, sys, time\n"
        "from videomac.study import lifeline\n"
        "place = pathlib.Path(sys.argv[1], sys.argv[2])\n"
        "def save(*_):\n    place.with_suffix('.saved').touch(); os._exit(130)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "lifeline.end_with_the_study()\n"
        "place.with_suffix('.begun').touch()\n"
        "time.sleep(300)\n"
    )
    (tmp_path / "child.py").write_text(child)
    parent = (
        "import subprocess, sys, pathlib\n"
        "from videomac.study import processes\n"
        "from videomac.study.config import StudyConfig\n"
        "from videomac.study.runs import runs_of\n"
        "from videomac.study.store import read_stored\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "start = subprocess.Popen\n"
        "popen = lambda words, **o: start([sys.executable, str(out / 'child.py'), *words[3:]], **o)\n"
        "processes.subprocess.Popen = popen\n"
        "config = StudyConfig(study=out, data=out, benchmark=out, out=out, jobs=2)\n"
        "processes.make_all(config, list(runs_of(read_stored(out), out)), 6, print)\n"
    )
    for number in (signal.SIGTERM, signal.SIGKILL):
        for file in [*tmp_path.glob("*.begun"), *tmp_path.glob("*.saved")]:
            file.unlink()
        process = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
            os.kill(process.pid, number)
            process.wait(60)
            _wait_for(lambda: len(list(tmp_path.glob("*.saved"))) == 2)
        finally:
            process.kill()


def _wait_for(condition: Any) -> None:
    for _ in range(4800):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")
