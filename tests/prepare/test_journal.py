"""Journals, whole and torn at every byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from videomac.prepare.journal import JournalWriter, Shot, Source, read_journal

SHOTS = [
    Shot(0.0, 0, 30, "a.mp4", fps=25.0, height=64, width=96, bytes=100, looks="ab"),
    Shot(1.2, 30, 5, reason="shorter than 12 frames"),
    Shot(1.4, 35, 40, "ü.mp4", fps=25.0, height=64, width=96, bytes=90, looks="cd"),
]


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "film.mp4", "deep/film.mp4", 1000, 123)


def write(path: Path, source: Source, shots: list[Shot]) -> None:
    with JournalWriter(path, source, []) as writer:
        for number, shot in enumerate(shots):
            writer.put(number, shot)
        writer.finish(3.0, None, passing=False)


def test_what_is_written_is_read(tmp_path: Path, source: Source) -> None:
    write(tmp_path / "j", source, SHOTS)
    journal = read_journal(tmp_path / "j")
    assert journal.identity == source.identity and journal.shots == SHOTS and journal.finished
    assert journal.source == "deep/film.mp4" and journal.seconds == 3.0 and journal.problem is None


def test_cut_off_anywhere_it_is_read_as_far_as_it_goes_and_written_on_to_the_same_bytes(
    tmp_path: Path, source: Source
) -> None:
    write(tmp_path / "whole", source, SHOTS)
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "torn"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length] + (b"\0" * 9 if length % 2 else b""))
        journal = read_journal(path)
        assert not journal.finished and journal.shots == SHOTS[: len(journal.shots)]
        with JournalWriter(path, source, journal.shots) as writer:
            for number, shot in enumerate(SHOTS):
                writer.put(number, shot)
            writer.finish(3.0, None, passing=False)
        assert path.read_bytes() == whole


def test_a_shot_that_is_another_one_cuts_off_what_follows(tmp_path: Path, source: Source) -> None:
    write(tmp_path / "j", source, SHOTS)
    with JournalWriter(tmp_path / "j", source, SHOTS) as writer:
        writer.put(0, SHOTS[0])
        writer.put(1, SHOTS[2])
    assert read_journal(tmp_path / "j").shots == [SHOTS[0], SHOTS[2]] and not read_journal(tmp_path / "j").finished


def test_a_source_that_may_be_read_later_is_not_finished(tmp_path: Path, source: Source) -> None:
    with JournalWriter(tmp_path / "j", source, []) as writer:
        writer.finish(0.0, "Input/output error", passing=True)
    journal = read_journal(tmp_path / "j")
    assert journal.problem == "Input/output error" and not journal.finished
