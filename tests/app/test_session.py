"""One browser tab, and that it is alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from videomac.app.session import Session, Sessions
from videomac.data.synthetic import moving_shapes
from videomac.errors import UserError
from videomac.utils.video_writer import write_video


def upload(folder: Path, name: str = "upload.mp4", *, frames: int = 4, seed: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    write_video(folder / name, moving_shapes(frames, (48, 64), seed=seed)[0], 12)
    return folder / name


def propagated(session: Session) -> Session:
    session.click(0, 40.0, 30.0)
    run = session.propagate("raw-pixels", 2)
    run.join(60)
    assert run.problem == "" and not session.is_busy
    return session


def test_two_tabs_do_not_see_each_others_clips_and_labels(sessions: Sessions, tmp_path: Path) -> None:
    one, two = sessions.of("one"), sessions.of("two")
    assert one.folder != two.folder and sessions.of("one") is one
    one.click(0, 4.0, 5.0)
    one.open(upload(tmp_path / "up"), "mine.mp4")
    one.click(1, 6.0, 7.0)
    assert one.clip is not None and one.clip.name == "mine.mp4" and len(one.clip) == 4
    assert two.clip is not None and two.clip.name == "shapes.mp4" and two.labelling.labels.points == {}
    assert list(two.folder.iterdir()) == []
    sessions.close("one")
    assert not one.folder.exists() and two.folder.exists()
    sessions.close_all()
    assert list(sessions.root.glob("session*")) == []


@pytest.mark.parametrize("name", ["../../x.mp4", "/etc/x.mp4", "..\\..\\x.mp4", "C:\\x.mp4", "x.mp4"])
def test_a_file_name_from_a_browser_is_never_a_path(sessions: Sessions, tmp_path: Path, name: str) -> None:
    session, sent = sessions.of("one"), upload(tmp_path / "up")
    before = {path for path in tmp_path.rglob("*") if path != sent}
    session.open(sent, name)
    assert session.clip is not None and session.clip.name == "x.mp4"
    assert {*tmp_path.rglob("*")} - before == {session.clip.path}
    assert session.clip.path == session.folder / "clip2.mp4"


@pytest.mark.parametrize("name", ["../../x", "", "..", "labels.csv"])
def test_what_is_no_clip_is_removed_and_the_open_one_stays(sessions: Sessions, tmp_path: Path, name: str) -> None:
    session, sent = sessions.of("one"), tmp_path / "sent"
    clip = session.clip
    sent.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(UserError, match="is no video"):
        session.open(sent, name)
    assert session.clip is clip and not sent.exists() and list(session.folder.iterdir()) == []


def test_a_broken_clip_is_removed_and_the_open_one_stays(sessions: Sessions, tmp_path: Path) -> None:
    session, sent = sessions.of("one"), tmp_path / "sent.mp4"
    clip = session.clip
    sent.write_bytes(b"no video at all" * 99)
    with pytest.raises(UserError, match=r"holiday\.mp4 cannot be read"):
        session.open(sent, "holiday.mp4")
    assert session.clip is clip and not sent.exists() and list(session.folder.iterdir()) == []


def test_another_clip_replaces_the_upload_before_it(sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.of("one")
    session.open(upload(tmp_path / "up"), "one.mp4")
    propagated(session)
    session.open(upload(tmp_path / "up", frames=3), "two.mp4")
    assert len(session.the_clip) == 3 and session.propagation is None and session.labelling.labels.points == {}
    assert [path.name for path in session.folder.glob("clip*")] == ["clip3.mp4"]
    assert not (session.folder / "labels").exists()


def test_labels_change_what_is_seen_and_a_correction_changes_it_again(sessions: Sessions) -> None:
    session = sessions.of("one")
    plain = session.picture(7).copy()
    propagated(session)
    labelled = session.picture(7)
    assert np.abs(labelled.astype(int) - plain).max() > 60
    (place,) = session.points(7).values()
    there = (place[0] + 30) % 96
    session.click(7, there, place[1])
    session.propagate("raw-pixels", 2).join(60)
    assert session.points(7)["label 1"][0] == pytest.approx(there, abs=0.01)
    assert session.labelling.labels.frames == [0, 7]


def test_a_click_beyond_the_frame_is_on_its_border(sessions: Sessions) -> None:
    session = sessions.of("one")
    session.click(0, -9.0, 1e9)
    assert session.points(0) == {"label 1": (0.0, 63.0, True)}
    with pytest.raises(UserError, match="there is no frame 12"):
        session.click(12, 0, 0)


def test_the_eraser_hides_a_point_or_removes_paint(sessions: Sessions) -> None:
    session = sessions.of("one")
    session.click(0, 40.0, 30.0)
    session.stroke(0, [(41.0, 30.0)], 3.0, erase=True)
    assert session.points(0)["label 1"][2] is False
    session.stroke(0, [(10.0, 10.0)], 3.0, erase=False)
    session.stroke(0, [(10.0, 10.0)], 9.0, erase=True)
    mask = session.mask(0)
    assert mask is not None and not mask.any()


def test_everything_is_downloaded_but_what_is_private(sessions: Sessions, tmp_path: Path) -> None:
    session = propagated(sessions.of("one"))
    path = session.download(["coco"], tmp_path / "served")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        text = b"".join(archive.read(name) for name in names if not name.endswith((".mp4", ".png")))
    assert {"points.csv", "confidence.csv", "coco.json", "overlay.mp4", "given/points.csv"} <= {*names}
    assert str(sessions.root).encode() not in text and b"tmp" not in text


def test_without_labels_or_clip_there_is_one_sentence(tmp_path: Path, sessions: Sessions) -> None:
    session = sessions.of("one")
    with pytest.raises(UserError, match="nothing is labelled yet"):
        session.propagate("raw-pixels", 2)
    with pytest.raises(UserError, match="propagate first"):
        session.download([], tmp_path)
    with pytest.raises(UserError, match="no clip is open"):
        _ = Sessions(tmp_path / "other", sessions.backbones).of("one").the_clip
