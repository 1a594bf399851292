"""Reading frames by number against decoding the whole file in one go, in every container and codec at hand."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.data.sample_videos import B_FRAMES, check_reading, decode_all, encode
from videomac.data import video_file
from videomac.data.discovery import VIDEO_SUFFIXES, find_videos
from videomac.data.frame_folder import FrameFolder
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile

# The next key frame is decoded before this one is shown.
KEYS_IN_A_ROW = {"x264-params": "keyint=250:bframes=5:b-adapt=0:b-pyramid=normal:scenecut=0", "forced-idr": "1"}


ENCODINGS: dict[str, dict] = {
    "gop24.mp4": {"options": {"g": "24", **B_FRAMES}},
    "one-gop.mp4": {"options": {"g": "250", **B_FRAMES}},
    "open-gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}},
    "no-b-frames.mov": {"options": {"g": "10", "bf": "0"}},
    "short-gops.mp4": {"options": {"x264-params": "keyint=3:min-keyint=1:bframes=2:b-adapt=0:open-gop=1:scenecut=0"}},
    "keys-in-a-row.mp4": {"key_frames": (10, 11, 12, 13, 30, 31), "options": KEYS_IN_A_ROW},
    "keys-in-a-row.mkv": {"key_frames": (10, 11, 12, 13, 30, 31), "options": KEYS_IN_A_ROW},
    "intra.mkv": {"options": {"g": "1"}},
    "odd-size.mp4": {"size": (47, 63), "pix_fmt": "yuv444p", "options": {"g": "24"}},
    "ten-bit.mp4": {"pix_fmt": "yuv420p10le", "options": {"g": "24"}},
    "h264.mkv": {"options": {"g": "24", **B_FRAMES}},
    "h264.avi": {"num_frames": 30, "options": {"g": "12", **B_FRAMES}},
    "fragmented.mp4": {"options": {"g": "12"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "faststart.mov": {"options": {"g": "12"}, "container_options": {"movflags": "faststart"}},
    "late-start.mp4": {"options": {"g": "24"}, "first_time": 5000},
    "late-start.mkv": {"options": {"g": "24"}, "first_time": 5000},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "0"}},
    "mpeg4-b.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg4-b.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {
        "codec": "libvpx-vp9",
        "options": {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    },
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:log-level=none"},
    },
    "hevc.mkv": {
        "codec": "libx265",
        "options": {"x265-params": "keyint=12:min-keyint=12:open-gop=0:bframes=3:log-level=none"},
    },
    "phone.m4v": {"container": "mp4", "options": {"g": "24", **B_FRAMES}},
    "raw.m4v": {"codec": "mpeg4", "container": "m4v", "options": {"g": "12", "bf": "2"}},
    "camcorder.mts": {"container": "mpegts", "options": {"g": "12", **B_FRAMES}},
    "bluray.m2ts": {"container": "mpegts", "options": {"g": "12"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mpeg1.mpeg": {"codec": "mpeg1video", "options": {"g": "12", "bf": "2"}},
    "dvd.vob": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "h264.3gp": {"options": {"g": "12", **B_FRAMES}},
    "mpeg4.3g2": {"codec": "mpeg4", "options": {"g": "12"}},
    "wmv2.wmv": {"codec": "wmv2", "options": {"g": "12"}},
    "h264.asf": {"container": "asf", "options": {"g": "12", **B_FRAMES}},
    "h264.flv": {"options": {"g": "12", **B_FRAMES}},
    "sorenson.flv": {"codec": "flv", "options": {"g": "12"}},
    "h264.f4v": {"container": "mp4", "options": {"g": "12", **B_FRAMES}},
    "vp8.ogv": {"codec": "libvpx", "container": "ogg", "options": {"g": "20"}},
    "mpeg2.mxf": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "h264.mxf": {"options": {"g": "12", **B_FRAMES}},
    "tape.dv": {"codec": "dvvideo", "num_frames": 6, "size": (576, 720)},
    "loop.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "av1.mkv": {"codec": "libsvtav1", "num_frames": 24, "size": (64, 64), "options": {"preset": "11", "g": "12"}},
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_frames_are_exact(tmp_path: Path, name: str) -> None:
    settings = ENCODINGS[name]
    if settings.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {settings['codec']}")
    path = encode(tmp_path / name, **settings)
    check_reading(path, settings.get("num_frames", 60))
    assert VideoFile(path).fps == pytest.approx(25, rel=0.05)


def test_every_kind_of_file_that_is_looked_for_is_read_in_a_test() -> None:
    assert set(VIDEO_SUFFIXES) == {Path(name).suffix for name in ENCODINGS}


@pytest.mark.parametrize("name", ["mpeg2.ts", "mpeg2.mpg"])
def test_containers_without_a_list_of_frames_are_searched_and_not_counted(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start a frame near the end of a long recording would take as long as the recording."""
    path = encode(tmp_path / name, codec="mpeg2video", num_frames=120, options={"g": "12", "bf": "2"})
    expected = decode_all(path)
    monkeypatch.delattr(video_file, "_decode_by_counting")
    assert np.array_equal(VideoFile(path).read([100])[0].permute(1, 2, 0).numpy(), expected[100])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(1)
    times = np.cumsum([rng.choice([7, 33, 40, 41, 500]) for _ in range(60)]).tolist()
    check_reading(encode(tmp_path / f"a{suffix}", times=times, options={"g": "24", **B_FRAMES}), 60)


def trimmed(path: Path, source: Path, hidden: int) -> Path:
    """Cut without encoding: an edit list hides the first frames, as phones and `ffmpeg -ss -c copy` do."""
    with av.open(str(source)) as read, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        step = 40 * read.streams.video[0].time_base.denominator // 1000
        for packet in read.demux(video=0):
            if packet.size:
                packet.pts, packet.dts = packet.pts - hidden * step, packet.dts - hidden * step
                packet.stream = stream
                write.mux(packet)
    return path


@pytest.mark.parametrize("options", [{"g": "24", "bf": "0"}, {"g": "24", **B_FRAMES}])
def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path, options: dict[str, str]) -> None:
    path = trimmed(tmp_path / "cut.mp4", encode(tmp_path / "whole.mp4", options=options), hidden=10)
    assert len(decode_all(path)) < 60  # else the file would prove nothing
    check_reading(path)


def test_pictures_that_vp8_never_shows_do_not_count(tmp_path: Path) -> None:
    """Clearing a bit of its header turns a picture into one that is referred to but not shown."""
    source = encode(tmp_path / "whole.webm", codec="libvpx", options={"g": "20", "deadline": "realtime"})
    path = tmp_path / "hidden.webm"
    with av.open(str(source)) as read, av.open(str(path), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(packet for packet in read.demux(video=0) if packet.size):
            data = bytearray(bytes(packet))
            data[0] &= 0xFF ^ 0x10 * (number in (5, 30, 31))
            changed = av.Packet(bytes(data))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.is_keyframe, changed.stream = packet.is_keyframe, stream
            write.mux(changed)
    check_reading(path, 57)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (-90, 3), (180, 2)])
def test_rotation_is_applied(tmp_path: Path, angle: int, turns: int) -> None:
    """A file that says "turn me": the angle is counter-clockwise, as is numpy's."""
    path = encode(tmp_path / "a.mp4", num_frames=10, rotation=angle)
    plain = encode(tmp_path / "plain.mp4", num_frames=10)
    frames = VideoFile(path).read(range(10)).permute(0, 2, 3, 1).numpy()
    assert frames.shape[1:3] == ((64, 48) if turns % 2 else (48, 64))
    for frame, upright in zip(frames, decode_all(plain), strict=True):
        assert np.array_equal(frame, np.rot90(upright, turns))


def test_a_phones_portrait_video_stands_upright(tmp_path: Path) -> None:
    """The matrix (0, 1, -1, 0) of a portrait recording maps the sensor's left edge to the top of the picture.

    QuickTime's convention, written down here on its own: x' = a x + c y = -y (+ height), y' = b x + d y = x.
    """
    path = tmp_path / "phone.mov"
    one, unit = 1 << 16, 1 << 30
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_matrix([0, one, 0, -one, 0, 0, 48 * one, 0, unit])
        pixels = np.zeros((48, 64, 3), dtype=np.uint8)
        pixels[:, :16] = 255
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    frame = VideoFile(path).read([1])[0]
    assert frame.shape == (3, 64, 48)
    assert frame[:, :15].min() > 200 and frame[:, 17:].max() < 50


def test_real_clips_are_exact(shared_data: Path) -> None:
    found = find_videos(shared_data / "pretrain")
    assert len(found) == 87 and sum(map(len, found)) == 7608
    assert {video.name for video in found} == {path.name for path in (shared_data / "pretrain").glob("*.mp4")}
    assert all(min(video.read([0]).shape[-2:]) == 256 for video in found[::20])
    for video in found[:2]:
        check_reading(shared_data / "pretrain" / video.name)


def test_real_avi_with_dropped_frames_counts_what_can_be_seen(shared_data: Path) -> None:
    """The header announces 48 frames, 40 are there, and JHMDB's own extracted pictures are 40."""
    (path,) = (shared_data / "jhmdb-sample").rglob("*.avi")
    (folder,) = {picture.parent for picture in (shared_data / "jhmdb-sample").rglob("*.png")}
    check_reading(path, 40)
    assert len(FrameFolder(folder)) == 40


def test_a_title_that_is_not_utf8(tmp_path: Path) -> None:
    source, titled = encode(tmp_path / "a.mp4", num_frames=5), tmp_path / "titled.mkv"
    with av.open(str(source)) as given, av.open(str(titled), "w") as written:
        written.metadata["title"] = "a plain title"
        stream = written.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                written.mux(packet)
    content = titled.read_bytes()
    assert b"a plain title" in content
    titled.write_bytes(content.replace(b"a plain title", b"caf\xe9 \xff\xfe title"))
    assert find_videos(titled)[0].read([4]).shape == (1, 3, 48, 64)


def test_only_the_wanted_stretch_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last frame of a long video must not cost the decoding of all the others."""
    video = VideoFile(encode(tmp_path / "a.mp4", num_frames=100, options={"g": "10", **B_FRAMES}))
    counted: list[int] = []
    plain: Callable = video_file._packets_from_key

    def counting(*arguments: object) -> object:
        for packet in plain(*arguments):
            counted.append(packet.size)
            yield packet

    monkeypatch.setattr(video_file, "_packets_from_key", counting)
    video.read([98, 99])
    assert len(counted) <= 11
    counted.clear()
    video.read([5, 95])
    assert len(counted) <= 22


# Damage --------------------------------------------------------------------------------------------------------------


def test_truncated_with_the_index_in_front_keeps_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = encode(tmp_path / "a.mp4", options={"g": "12"}, container_options={"movflags": "faststart"})
    whole = decode_all(path)
    os.truncate(path, path.stat().st_size * 2 // 3)
    video = VideoFile(path)
    assert 20 < len(video) < 60
    assert f"truncated, {len(video)} of its 60 frames" in caplog.text
    last = len(video) // 12 * 12 - 12  # up to the last key frame the numbers are those of the whole file
    assert np.array_equal(video.read([last])[0].permute(1, 2, 0).numpy(), whole[last])
    assert video.read([len(video) - 1]).shape == (1, 3, 48, 64)


def test_truncated_with_the_index_behind_cannot_be_opened(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(VideoError, match=r"a\.mp4: Invalid data"):
        VideoFile(path)


def test_truncated_mkv_is_as_long_as_what_is_there(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", options={"g": "12", "bf": "0"})
    os.truncate(path, path.stat().st_size // 2)
    video = VideoFile(path)
    assert 10 < len(video) < 60
    assert video.read([0, len(video) - 1]).shape == (2, 3, 48, 64)


def test_damage_in_the_middle_spares_the_rest(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", options={"g": "12", "bf": "0", "sc_threshold": "0"})
    whole = decode_all(path)
    with av.open(str(path)) as container:
        third_key = [entry for entry in container.streams.video[0].index_entries if entry.is_keyframe][2]
    with path.open("r+b") as file:
        file.seek(third_key.pos)
        file.write(b"\xff" * third_key.size)
    video = VideoFile(path)
    assert len(video) == 60
    with pytest.raises(VideoError, match=r"a\.mp4: "):
        video.read([24])
    for number in [0, 23, 36, 59]:
        assert np.array_equal(video.read([number])[0].permute(1, 2, 0).numpy(), whole[number])


@pytest.mark.parametrize("content", [b"", b"this is not a video", bytes(5000)])
def test_files_that_are_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.mp4").write_bytes(content)
    with pytest.raises(VideoError, match=r"bad\.mp4: "):
        VideoFile(tmp_path / "bad.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="holds no video"):
        VideoFile(path)


def test_a_file_that_vanishes_is_a_video_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", num_frames=5)
    video = VideoFile(path)
    path.unlink()
    with pytest.raises(VideoError, match="No such file"):
        video.read([0])


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", num_frames=40)
    long = VideoFile(path)
    long.read([39])
    encode(path, num_frames=20, options={"g": "5"})
    os.utime(path, ns=(1, 1))
    with pytest.raises(VideoError, match="ends after 20 of the 40 frames"):
        long.read([39])
    check_reading(path, 20)
