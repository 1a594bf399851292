"""Finding every video below a folder, and taking so many hours of them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.data.sample_videos import encode
from videomac.data.discovery import Skipped, find_videos, select_hours
from videomac.data.synthetic import moving_shapes
from videomac.data.video import Video
from videomac.errors import UserError
from videomac.utils.video_writer import write_frames, write_video


def names(videos: Sequence[Video]) -> list[str]:
    return [video.name for video in videos]


def test_files_and_folders_of_frames_at_any_depth(tmp_path: Path) -> None:
    clip = encode(tmp_path / "source.mp4", num_frames=5)
    shapes = moving_shapes(3, (32, 32))[0]
    root = tmp_path / "data"
    for folder in ["day 10/cam", "day 2", "both"]:
        write_frames(root / folder, shapes, suffix=".jpg")
    for name in ["top.mp4", "both/clip.MOV", "both/deep/er/x.mp4", ".hidden.mp4", ".cache/y.mp4", "both/._x.mp4"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, root / name)
    write_frames(root / ".thumbnails", shapes)
    (root / "readme.txt").write_text("hello")
    found = find_videos(root)
    assert names(found) == ["both", "both/clip.MOV", "both/deep/er/x.mp4", "day 2", "day 10/cam", "top.mp4"]
    assert [type(video).__name__[0] for video in found] == list("FVVFFV")
    assert [len(video) for video in found] == [3, 5, 5, 3, 3, 5]


def test_names_with_spaces_colons_and_umlauts_and_capital_suffixes(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", num_frames=5)
    folder = tmp_path / "Küche 1 中文"
    folder.mkdir()
    for name in ["12:30 Tür.MP4", "b%05d.Mp4"]:
        shutil.copy(source, folder / name)
    found = find_videos(folder)
    assert [video.name for video in found] == ["12:30 Tür.MP4", "b%05d.Mp4"]
    assert all(video.read([4]).shape == (1, 3, 48, 64) for video in found)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "12:30.mp4", num_frames=5)
    monkeypatch.chdir(tmp_path)
    (video,) = find_videos(".")
    assert video.read([2]).shape == (1, 3, 48, 64)
    assert find_videos("12:30.mp4")[0].name == "12:30.mp4"


def test_youtube_vos_layout_without_its_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shapes, ids = moving_shapes(3, (32, 32))
    for name in ["0a2f", "1b"]:
        write_frames(tmp_path / "train" / "JPEGImages" / name, shapes, suffix=".jpg")
        write_frames(tmp_path / "train" / "Annotations" / name, ids.unsqueeze(1).repeat(1, 3, 1, 1))
    write_frames(tmp_path / "other" / "Annotations", shapes)  # only a name
    assert names(find_videos(tmp_path)) == ["other/Annotations", "train/JPEGImages/0a2f", "train/JPEGImages/1b"]
    assert caplog.text.count("labels, not video") == 1
    assert names(find_videos(tmp_path / "train" / "JPEGImages" / "1b")) == ["1b"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    encode(tmp_path / "store" / "a.mp4", num_frames=3)
    root = tmp_path / "data"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "store")
    (root / "loop").symlink_to(root)
    assert names(find_videos(root)) == ["link/a.mp4"]


def test_broken_and_short_videos_are_reported_once_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encode(tmp_path / "good.mp4", num_frames=6)
    encode(tmp_path / "short.mp4", num_frames=3)
    (tmp_path / "bad.mp4").write_bytes(b"nonsense")
    (tmp_path / "empty.mkv").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "poster.jpg")
    assert names(find_videos(tmp_path, frame_gap=3)) == ["good.mp4"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5
    for part in [
        "bad.mp4: Invalid data",
        "empty.mkv: ",
        "short.mp4: has 3 frames, too few for pairs 3 apart",
        "has 1 frame,",
    ]:
        assert sum(part in line for line in lines) == 1, part
    assert lines[-1] == f"4 of 5 videos in {tmp_path} were skipped"
    caplog.clear()
    assert names(find_videos(tmp_path / "good.mp4")) == ["good.mp4"]
    assert not caplog.records


def test_a_gap_in_time_counts_in_frames_of_each_video(tmp_path: Path) -> None:
    encode(tmp_path / "film.mp4", num_frames=2)  # 25 frames per second
    write_video(tmp_path / "phone.mp4", moving_shapes(2, (48, 64))[0], fps=60)
    write_frames(tmp_path / "frames", moving_shapes(2, (48, 64))[0])  # 24
    skipped: list[Skipped] = []
    assert names(find_videos(tmp_path, "40ms", skipped)) == ["film.mp4", "frames"]
    assert skipped == [Skipped("phone.mp4", "has 2 frames, too few for pairs 40ms apart")]


def test_what_is_not_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    shapes, ids = moving_shapes(3, (32, 32))
    write_frames(tmp_path / "vos" / "JPEGImages" / "0a", shapes, suffix=".jpg")
    write_frames(tmp_path / "vos" / "Annotations" / "0a", ids.unsqueeze(1).repeat(1, 3, 1, 1))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "bad.MTS").write_bytes(b"nonsense")
    for name in ("a.txt", "b.TXT", "deep/c.json", ".hidden.txt", "deep/README"):
        (tmp_path / name).write_text("hello")
    skipped: list[Skipped] = []
    find_videos(tmp_path, skipped=skipped)
    bad = [entry for entry in skipped if entry.is_video]
    assert [entry.name for entry in bad] == ["deep/bad.MTS"] and bad[0].reason.startswith("Invalid data")
    assert str(tmp_path) not in bad[0].reason
    assert [entry for entry in skipped if not entry.is_video] == [
        Skipped("vos/Annotations", "labels, not video", is_video=False),
        Skipped("4 other files", "no videos by their names: 2 .txt, 1 .json, 1 without a suffix", is_video=False),
    ]


def test_a_url_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("s3://bucket/clips", Path("s3://bucket/clips")):
        with pytest.raises(UserError, match=r"is s3://bucket/clips, and URLs are not read: copy the files") as refused:
            find_videos(url)
        assert "\n" not in str(refused.value)
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "12:30.mp4", num_frames=3)
    assert names(find_videos("12:30.mp4")) == ["12:30.mp4"]
    with pytest.raises(UserError, match="no such folder"):
        find_videos("c:/videos")  # a drive of Windows


def test_nothing_usable_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder or video file: .*missing"):
        find_videos(tmp_path / "missing")
    with pytest.raises(UserError, match=r"looked for video files \(\.mp4.*found nothing"):
        find_videos(tmp_path)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UserError, match=rf"no video in {tmp_path}: .*\.jpg.* found only files of type \.txt$"):
        find_videos(tmp_path)
    (tmp_path / "b.mp4").write_text("hello")
    with pytest.raises(UserError, match=r"none of the 1 videos in .* can be used; the first: .*b\.mp4: Invalid data"):
        find_videos(tmp_path)
    with pytest.raises(UserError, match=r"b\.mp4: Invalid data"):
        find_videos(tmp_path / "b.mp4")
    with pytest.raises(UserError, match=r"a\.txt"):
        find_videos(tmp_path / "a.txt")


# Hours ----------------------------------------------------------------------------------------------------------------


class Stub:
    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.fps, self._frames = name, 10.0, round(10 * seconds)

    def __len__(self) -> int:
        return self._frames

    def read(self, indices: object) -> torch.Tensor:
        raise AssertionError("must not be read")


def test_hours_are_a_reproducible_subset_of_whole_videos() -> None:
    stubs = [Stub(f"v{number}", 36) for number in range(50)]  # a hundredth of an hour each
    taken = select_hours(stubs, 0.195, seed=1)
    assert len(taken) == 20
    assert taken == [stub for stub in stubs if stub in taken]
    backwards = select_hours(stubs[::-1], 0.195, seed=1)
    assert set(names(backwards)) == set(names(taken))
    assert set(names(select_hours(stubs, 0.195, seed=2))) != set(names(taken))
    fewer = select_hours(stubs, 0.095, seed=1)
    assert set(names(fewer)) < set(names(taken)) and len(fewer) == 10
    assert len(select_hours(stubs, 1e-9)) == 1


def test_hours_beyond_what_is_there(caplog: pytest.LogCaptureFixture) -> None:
    stubs = [Stub("a", 3600), Stub("b", 1800)]
    assert select_hours(stubs, 2) == stubs
    assert "2.00 hours of video were asked for and there are 1.50" in caplog.text
    caplog.clear()
    assert select_hours(stubs, 1.5) == stubs and not caplog.records
    with pytest.raises(UserError, match="hours must be positive"):
        select_hours(stubs, 0)
