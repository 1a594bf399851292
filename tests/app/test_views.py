"""What the page is shown."""

from __future__ import annotations

from pathlib import Path

from videomac.app import views
from videomac.app.session import Sessions


def test_of_a_long_video_each_sample_is_the_lowest_of_its_frames() -> None:
    rows = {
        frame: {"points": {"nose": [1, 2, True, 1]}, "confidence": {"nose": 0.2 if frame == 701 else 0.9, "2": 0.5}}
        for frame in range(1000)
    }
    nose, ear = views.curves(rows, {1: "nose", 2: "ear"})
    assert (nose["name"], ear["name"]) == ("nose", "ear") and nose["colour"] != ear["colour"]
    assert len(nose["values"]) <= views.MOST_SAMPLES
    assert [frame for frame, share in nose["values"] if share < 0.5] == [699]
    assert views.curves({}, {1: "nose"}) == []


def test_a_page_without_a_clip_is_empty(sessions: Sessions, tmp_path: Path) -> None:
    session = Sessions(tmp_path / "other", sessions.backbones).of("one")
    assert views.stage(session, 0) == {} and views.timeline(session) == {"clip": 0, "length": 0}


def test_a_frame_beyond_the_end_is_the_last_one(sessions: Sessions) -> None:
    session = sessions.of("one")
    shown = views.stage(session, 99)
    assert shown["frame"] == 11 and (shown["width"], shown["height"]) == (96, 64) and not shown["busy"]
    assert shown["src"].startswith("data:image/jpeg;base64,")
    assert views.labels(session)["labels"][0]["active"]
