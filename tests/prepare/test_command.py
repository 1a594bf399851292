"""Footage to clips, whole: what is made, made again, killed, shared, refused."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

import videomac
from tests.prepare.footage import content, forkserver, left_over
from videomac import cli
from videomac.data.manifest import manifest_settings, read_manifest
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.prepare import command, folder, processes
from videomac.prepare.command import run
from videomac.prepare.config import PrepareConfig

pytestmark = [pytest.mark.usefixtures("forked"), pytest.mark.skipif(os.name == "nt", reason="forks and signals")]


def prepare(raw: Path, clips: Path, **options: object) -> None:
    run(PrepareConfig(raw, clips, **{"workers": 1, **options}))  # type: ignore[arg-type]


# What is made ---------------------------------------------------------------------------------------------------------


def test_the_manifest_tells_of_every_clip(prepared: Path) -> None:
    table = read_manifest(prepared)
    found = sorted((row["source"], row["start"], row["frames"]) for row in table.to_pylist())
    assert found[:4] == [("again.mp4", 0.0, 30), ("again.mp4", 1.2, 26), ("deep/large.mkv", 0.0, 40), found[3]]
    assert found[3][0] == "half.mp4" and 12 <= found[3][2] < 60
    assert found[4:] == [("pictures", 0.0, 20)]
    assert manifest_settings(table)["gop"] == 12
    names = {row["name"] for row in table.to_pylist()}
    assert {path.name for path in prepared.glob("*.mp4")} == names
    assert {path.stem + ".mp4" for path in prepared.glob("*.json")} == names


def test_a_clip_is_small_h264_with_a_key_frame_every_12_frames_and_no_sound(prepared: Path) -> None:
    for row in read_manifest(prepared).to_pylist():
        with av.open(str(prepared / row["name"])) as container:
            assert [stream.type for stream in container.streams] == ["video"]
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            frames = list(container.decode(stream))
            keys = [number for number, frame in enumerate(frames) if frame.key_frame]
            assert keys == list(range(0, row["frames"], 12)) and len(frames) == row["frames"]
            assert (stream.height, stream.width) == (row["height"], row["width"])
            assert float(stream.average_rate) == row["fps"] and not stream.codec_context.has_b_frames
        assert min(row["height"], row["width"]) == (256 if row["source"] == "deep/large.mkv" else 64)
        sidecar = json.loads((prepared / row["name"]).with_suffix(".json").read_text())
        assert {key: sidecar[key] for key in row} == row


def test_a_clip_shows_what_the_source_shows(raw: Path, prepared: Path) -> None:
    source = VideoFile(raw / "two.mp4")
    for row in read_manifest(prepared).to_pylist():
        if row["source"] == "again.mp4":
            clip, first = VideoFile(prepared / row["name"]), round(row["start"] * row["fps"])
            for number in (0, 11, 12, row["frames"] - 1):
                difference = clip.read([number]).int() - source.read([first + number]).int()
                assert difference.abs().float().mean() < 4


def test_what_became_no_clip_is_listed_with_the_reason(prepared: Path) -> None:
    header, *rows = (prepared / "dropped.csv").read_text().splitlines()
    assert header == "source,start,frames,reason" and rows[-1] == "short.mp4,0.0,5,shorter than 12 frames"
    header, *rows = (prepared / "skipped.csv").read_text().splitlines()
    assert header == "name,reason" and [row.split(",")[0] for row in rows] == ["broken.mp4", "half.mp4"]
    assert all(len(row.split(",", 1)[1]) > 10 for row in rows)
    assert not left_over(prepared)


def test_static_shots_and_near_duplicates_are_dropped_on_request(tmp_path: Path) -> None:
    from tests.prepare.footage import scene
    from videomac.utils.video_writer import write_video

    raw, clips = tmp_path / "raw", tmp_path / "clips"
    raw.mkdir()
    moving = scene(30, 1)
    write_video(raw / "a.mp4", moving)
    write_video(raw / "b.mp4", (moving.int() + 3).clamp(0, 255).byte())  # a little brighter
    write_video(raw / "other.mp4", scene(30, 2))
    write_video(raw / "still.mp4", scene(1, 3).repeat(30, 1, 1, 1))
    for _ in range(2):
        prepare(raw, clips, drop_static=True, drop_duplicates=True)
        assert sorted(row["source"] for row in read_manifest(clips).to_pylist()) == ["a.mp4", "other.mp4"]
        dropped = (clips / "dropped.csv").read_text()
        assert "b.mp4,0.0,30,looks like " in dropped and "still.mp4,0.0,30,static: nothing moves" in dropped
        assert len(list(clips.glob("*.mp4"))) == 2
    prepare(raw, tmp_path / "all")
    assert len(read_manifest(tmp_path / "all")) == 4


# Made again -----------------------------------------------------------------------------------------------------------


def test_again_nothing_is_made(raw: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = shutil.copytree(prepared, tmp_path / "clips")
    tasks: list[str] = []
    real = command.prepare_all
    monkeypatch.setattr(
        command, "prepare_all", lambda f, todo, n: (tasks.extend(task.source.name for task in todo), real(f, todo, n))
    )
    prepare(raw, clips)
    assert tasks == ["broken.mp4"]  # its owner may have mended it
    assert content(clips) == content(prepared)


@pytest.mark.parametrize("gone", ["clip", "sidecar", "manifest", "journal", "cut off", "temporary"])
def test_what_is_missing_is_made_again(raw: Path, prepared: Path, tmp_path: Path, gone: str) -> None:
    clips = shutil.copytree(prepared, tmp_path / "clips")
    name = next(row["name"] for row in read_manifest(clips).to_pylist() if row["source"] == "deep/large.mkv")
    if gone == "clip":
        (clips / name).unlink()
    elif gone == "sidecar":
        (clips / name).with_suffix(".json").unlink()
    elif gone == "manifest":
        (clips / "manifest.parquet").write_bytes((clips / "manifest.parquet").read_bytes()[:100])
    elif gone == "journal":
        journal = max((clips / ".prepare" / "sources").iterdir(), key=lambda path: path.stat().st_size)
        journal.write_bytes(journal.read_bytes()[:-70])
    elif gone == "cut off":
        (clips / name).write_bytes((clips / name).read_bytes()[:-1])
    else:
        (clips / ".prepare" / "tmp" / "part-3-of-7").mkdir(parents=True)
        (clips / ".prepare" / "tmp" / "part-3-of-7" / "left.mp4").touch()
        (clips / ".manifest.parquet.x.partial").touch()
        (clips / ".prepare" / ".settings.json.x.partial").touch()
    prepare(raw, clips)
    assert content(clips) == content(prepared) and not left_over(clips)


def test_a_source_that_has_changed_is_prepared_anew(tmp_path: Path) -> None:
    from tests.prepare.footage import scene
    from videomac.utils.video_writer import write_video

    raw, clips = tmp_path / "raw", tmp_path / "clips"
    raw.mkdir()
    write_video(raw / "a.mp4", scene(30, 1))
    prepare(raw, clips)
    before = read_manifest(clips)["name"].to_pylist()
    write_video(raw / "a.mp4", scene(36, 2))
    prepare(raw, clips)
    (row,) = read_manifest(clips).to_pylist()
    assert row["frames"] == 36 and row["name"] not in before and len(list(clips.glob("*.mp4"))) == 1


def test_parts_and_processes_give_the_same_clips(raw: Path, prepared: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    for part in ("2/3", "0/3", "1/3"):
        prepare(raw, clips, part=part, workers=2)
    assert content(clips) == content(prepared) and not left_over(clips)


def _in_group(raw: Path, clips: Path, options: dict[str, object]) -> None:
    os.setsid()
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    # Here no thread holds anything that a fork would miss.
    processes.multiprocessing = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork"))  # type: ignore[assignment]
    prepare(raw, clips, **options)


def in_background(raw: Path, clips: Path, **options: object) -> BaseProcess:
    """The command in a process group of its own."""
    child = forkserver().Process(target=_in_group, args=(raw, clips, options))
    child.start()
    return child


def test_two_parts_at_once_give_the_same_clips(raw: Path, prepared: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    children = [in_background(raw, clips, part=f"{part}/2") for part in range(2)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert content(clips) == content(prepared) and not left_over(clips)


# Killed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_run_again_it_gives_the_same_bytes(raw: Path, prepared: Path, tmp_path: Path, seed: int) -> None:
    clips, draw = tmp_path / "clips", random.Random(seed)
    for _ in range(3):
        child = in_background(raw, clips, workers=2)
        time.sleep(draw.uniform(0.02, 0.7))
        assert child.pid is not None
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # before it had a group, or after its end
            child.kill()
        child.join()
        names = {path.name for path in clips.glob("*.mp4")}
        assert names <= {path.name for path in prepared.glob("*.mp4")}
    prepare(raw, clips)
    assert content(clips) == content(prepared) and not left_over(clips)


def test_ctrl_c_keeps_what_is_done(raw: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = tmp_path / "clips"
    add = command.Progress.add

    def interrupt(self: command.Progress, seconds: float, size: float) -> None:
        add(self, seconds, size)
        if len(list(clips.glob("*.mp4"))) >= 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.Progress, "add", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: .* holds [234] clips, .*; the same command goes on"):
        prepare(raw, clips)
    assert len(read_manifest(clips)) == len(list(clips.glob("*.mp4"))) >= 2 and not left_over(clips)
    monkeypatch.setattr(command.Progress, "add", add)
    prepare(raw, clips)
    assert content(clips) == content(prepared)


class DiesAtPictures(command._Work):
    def __call__(self, task: command.Task, say: Callable[[Any], None]) -> command.Outcome:
        if task.source.name == "pictures":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(task, say)


def test_a_source_whose_process_dies_is_listed_and_tried_again(
    raw: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = tmp_path / "clips"
    with monkeypatch.context() as patch:
        patch.setattr(command, "_Work", DiesAtPictures)
        prepare(raw, clips, workers=2)
    assert 'pictures,"the process that read it died by signal 9' in (clips / "skipped.csv").read_text()
    assert len(read_manifest(clips)) == len(read_manifest(prepared)) - 1
    prepare(raw, clips)
    assert content(clips) == content(prepared)


# Refused --------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_prepared_is_one_sentence(raw: Path, prepared: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for footage, clips, sentence in (
        (raw, raw, "cannot be in the same folder"),
        (raw, raw / "clips", "the clips would lie within the footage"),
        (raw / "deep", raw, "the footage lies within the clips"),
        (raw, full, r"holds other things \(thesis.tex\): name an empty or new folder"),
        (tmp_path / "nowhere", tmp_path / "clips", "no such folder of footage"),
        (empty, tmp_path / "clips", "no footage in .*empty"),
    ):
        with pytest.raises(UserError, match=sentence):
            prepare(footage, clips)
    assert not (tmp_path / "clips").exists() and sorted(path.name for path in full.iterdir()) == ["thesis.tex"]
    with pytest.raises(UserError, match="made with drop_static = false, and this call would make them with true"):
        prepare(raw, prepared, drop_static=True)


@dataclass(frozen=True)
class TakesTwoClips(command._Work):
    """Work on a disk that takes two clips and then says no, with this number."""

    number: int = 0

    def __call__(self, task: command.Task, say: Callable[[Any], None]) -> command.Outcome:
        real = folder.ClipFolder._write

        def write(where: folder.ClipFolder, path: Path, data: bytes, part: str) -> None:
            if len(list(where.path.glob("*.mp4"))) >= 2:
                raise OSError(self.number, os.strerror(self.number), str(path))
            real(where, path, data, part)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder.ClipFolder, "_write", write)
            return super().__call__(task, say)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "no space is left .* run the same command again"), (errno.EROFS, "cannot be written")],
)
def test_a_disk_that_takes_nothing_is_one_sentence_and_what_is_done_is_kept(
    raw: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    clips = tmp_path / "clips"
    with monkeypatch.context() as patch:
        patch.setattr(command, "_Work", partial(TakesTwoClips, number=number))
        with pytest.raises(UserError, match=sentence):
            prepare(raw, clips)
    assert len(read_manifest(clips)) == 2 and not left_over(clips)
    prepare(raw, clips)
    assert content(clips) == content(prepared)


def test_two_at_one_part_is_one_sentence(
    raw: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = shutil.copytree(prepared, tmp_path / "clips")
    wait = folder.FileLock.wait
    monkeypatch.setattr(folder.FileLock, "wait", lambda lock, *_, **__: wait(lock, seconds=0.1))
    made = folder.ClipFolder.open(clips, command.settings(PrepareConfig(raw, clips)))
    with (
        made.part("0/1"),
        pytest.raises(UserError, match=r"another `videomac prepare` \(pid \d+ on .*\) is at work on part 0/1"),
    ):
        prepare(raw, clips)


# From the command line, and on to training ----------------------------------------------------------------------------


def test_the_command_itself(tmp_path: Path, prepared: Path, raw: Path) -> None:
    """Processes started afresh, as users have them, give the same bytes."""
    words = [sys.executable, "-m", "videomac", "prepare", str(raw), str(tmp_path / "clips"), "--workers", "1"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr, ended.stderr
    assert "7 sources in part 0/1, 7 to be read" in ended.stdout
    assert "holds 5 clips, 0.1 minutes" in ended.stdout and "times real time" in ended.stderr
    assert content(tmp_path / "clips") == content(prepared)


def test_a_prepared_set_trains(prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [
                *("pretrain", "--data", str(prepared), "--out", str(tmp_path / "run"), "--recipe", "small"),
                *("--backbone", "test_convnext", "--steps", "3", "--global_batch_size", "4", "--image_size", "64"),
                *("--decoder_width", "16", "--workers", "0", "--held_out", "2", "--trainer.accelerator", "cpu"),
            ]
        )
    assert not ended.value.code, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert np.isfinite(metrics["loss"]) and videomac.load_backbone(tmp_path / "run") is not None
