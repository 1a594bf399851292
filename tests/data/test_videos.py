"""Reading frames by number against decoding the whole file in one go, in every container and codec at hand."""

from __future__ import annotations

import logging
import os
import pickle
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from videomac.data import video_file as module
from videomac.data.cache import MemoryVideo, cache_in_memory
from videomac.data.discovery import find_videos, select_hours
from videomac.data.frame_folder import FrameFolder
from videomac.data.synthetic import moving_shapes
from videomac.data.video import VideoError
from videomac.data.video_file import VideoFile
from videomac.errors import UserError
from videomac.utils.video_writer import write_frames, write_video


def encode(
    path: Path,
    num_frames: int = 60,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times: list[int] | None = None,
    pix_fmt: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    first_time: int = 0,
    key_frames: tuple[int, ...] = (),
) -> Path:
    """Write a video with full control of what makes reading difficult; `times` and `first_time` in milliseconds."""
    # AVI counts in frames: in milliseconds it would have a thousand a second.
    unit, step = (Fraction(1, 25), 1) if path.suffix == ".avi" else (Fraction(1, 1000), 40)
    frames, _ = moving_shapes(num_frames, size, seed=7)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = unit
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames.permute(0, 2, 3, 1).contiguous().numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = first_time + (times[number] if times else step * number)
            frame.time_base = unit
            if number in key_frames:
                frame.pict_type = 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """The reference: every frame in a row, by PyAV's defaults."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_reading(path: Path, num_frames: int | None = None) -> None:
    """Every single frame, all neighbours, scattered sets, repeats and any order equal the reference."""
    expected = decode_all(path)
    video = VideoFile(path)
    assert len(video) == len(expected) == (num_frames or len(expected))

    def same(indices: list[int]) -> None:
        frames = video.read(indices)
        assert frames.dtype == torch.uint8 and frames.shape[0] == len(indices) and frames.shape[1] == 3
        for frame, number in zip(frames, indices, strict=True):
            assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected[number]), f"frame {number} of {path.name}"

    for number in range(len(expected)):
        same([number])
    for number in range(0, len(expected) - 1, 3):
        same([number, number + 1])
    same(list(range(len(expected))))
    rng = random.Random(0)
    for _ in range(5):
        same([rng.randrange(len(expected)) for _ in range(6)])


B_FRAMES = {"bf": "3", "b_strategy": "0"}

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
    source = encode(tmp_path / "whole.webm", codec="libvpx", options={"g": "20"})
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


def test_names_with_spaces_colons_and_umlauts_and_capital_suffixes(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", num_frames=5)
    folder = tmp_path / "Küche 1 中文"
    folder.mkdir()
    for name in ["12:30 Tür.MP4", "b%05d.Mp4"]:
        shutil.copy(source, folder / name)
    found = find_videos(folder)
    assert [video.name for video in found] == ["12:30 Tür.MP4", "b%05d.Mp4"]
    assert all(video.read([4]).shape == (1, 3, 48, 64) for video in found)


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


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "12:30.mp4", num_frames=5)
    monkeypatch.chdir(tmp_path)
    (video,) = find_videos(".")
    assert video.read([2]).shape == (1, 3, 48, 64)
    assert find_videos("12:30.mp4")[0].name == "12:30.mp4"


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


@pytest.mark.parametrize("make", ["file", "folder", "memory"])
def test_frame_numbers_are_checked(tmp_path: Path, make: str) -> None:
    video = any_video(tmp_path, make)
    for bad in ([-1], [0, 12], [12]):
        with pytest.raises(IndexError, match=str(bad[-1])):
            video.read(bad)
    with pytest.raises(ValueError, match="no frames"):
        video.read([])


# Folders of frames ----------------------------------------------------------------------------------------------------


def any_video(folder: Path, kind: str) -> module.Video:
    if kind == "folder":
        write_frames(folder / "frames", moving_shapes(12, (40, 48))[0])
        return FrameFolder(folder / "frames")
    video: module.Video = VideoFile(encode(folder / "a.mp4", num_frames=12))
    return cache_in_memory([video], gib=0.1)[0] if kind == "memory" else video


def test_frames_come_in_natural_order(tmp_path: Path) -> None:
    for number in [0, 1, 2, 9, 10, 11, 100]:
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a frame")
    folder = FrameFolder(tmp_path)
    assert len(folder) == 7
    assert folder.read(range(7))[:, 0, 0, 0].tolist() == [0, 1, 2, 9, 10, 11, 100]
    assert folder.read([6, 0, 6])[:, 0, 0, 0].tolist() == [100, 0, 100]
    assert folder.fps == 24


def test_pictures_of_every_kind_become_rgb(tmp_path: Path) -> None:
    rgb = moving_shapes(1, (40, 48))[0][0].permute(1, 2, 0).numpy()
    image = Image.fromarray(rgb)
    grey = np.array(image.convert("L"))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(grey))
    palette = image.quantize(16)
    deep = grey.astype(np.uint16) * 257
    expected = {
        "0.png": (image, rgb),
        "1.png": (image.convert("L"), np.stack([grey] * 3, axis=-1)),
        "2.png": (alpha, rgb),
        "3.png": (palette, np.array(palette.convert("RGB"))),
        "4.png": (Image.fromarray(deep), np.stack([grey] * 3, axis=-1)),
        "5.BMP": (image, rgb),
        "6.png": (alpha.convert("LA"), np.stack([grey] * 3, axis=-1)),
        "7.png": (image.convert("1"), np.array(image.convert("1").convert("RGB"))),
    }
    for name, (picture, _) in expected.items():
        picture.save(tmp_path / name)
    image.save(tmp_path / "8.webp", lossless=True)
    palette.save(tmp_path / "9.png", transparency=3)
    image.convert("CMYK").save(tmp_path / "10.jpeg", quality=100)
    frames = FrameFolder(tmp_path).read(range(11)).permute(0, 2, 3, 1).numpy()
    for frame, (name, (_, pixels)) in zip(frames, expected.items(), strict=False):
        assert np.array_equal(frame, pixels), name
    assert np.array_equal(frames[8], rgb)
    assert np.array_equal(frames[9], expected["3.png"][1])
    assert np.abs(frames[10].astype(int) - rgb).mean() < 8


def test_frames_that_differ_in_size_are_named(tmp_path: Path) -> None:
    write_frames(tmp_path, moving_shapes(4, (40, 48))[0])
    Image.new("RGB", (32, 40)).save(tmp_path / "00002.png")
    video = FrameFolder(tmp_path)
    assert video.read([0, 1, 3]).shape == (3, 3, 40, 48)
    with pytest.raises(VideoError, match=r"00002\.png has 32x40 pixels where 00001\.png has 48x40"):
        video.read([1, 2])


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_broken_pictures_are_named(tmp_path: Path, content: bytes | None) -> None:
    write_frames(tmp_path, moving_shapes(3, (40, 48))[0], suffix=".jpg")
    bad = tmp_path / "00001.jpg"
    bad.write_bytes(bad.read_bytes()[:500] if content is None else content)
    with pytest.raises(VideoError, match=r"00001\.jpg: "):
        FrameFolder(tmp_path).read([0, 1])


def test_a_folder_that_loses_frames(tmp_path: Path) -> None:
    write_frames(tmp_path, moving_shapes(3, (40, 48))[0])
    video = FrameFolder(tmp_path)
    (tmp_path / "00001.png").unlink()
    os.utime(tmp_path, ns=(1, 1))
    with pytest.raises(VideoError, match="holds 2 pictures where there were 3"):
        video.read([2])


# Finding --------------------------------------------------------------------------------------------------------------


def names(videos: list[module.Video]) -> list[str]:
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


# Pickling and memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_videos_are_cheap_to_pickle(tmp_path: Path, kind: str) -> None:
    video = any_video(tmp_path, kind)
    expected = video.read([3, 4])
    state = pickle.dumps(video)
    assert len(state) < 600
    assert torch.equal(pickle.loads(state).read([3, 4]), expected)


def checksum(video: module.Video, indices: list[int]) -> int:
    return int(video.read(indices).long().sum())


@pytest.mark.parametrize(
    ("kind", "method"), [("file", "fork"), ("folder", "fork"), ("memory", "fork"), ("memory", "spawn")]
)
def test_videos_can_be_read_in_other_processes(tmp_path: Path, kind: str, method: str) -> None:
    video = any_video(tmp_path, kind)
    context = torch.multiprocessing.get_context(method)
    with context.Pool(1) as pool:
        assert pool.apply(checksum, (video, [3, 7])) == checksum(video, [3, 7])


def test_memory_holds_the_same_frames(tmp_path: Path) -> None:
    for number in range(3):
        encode(tmp_path / f"{number}.mp4", num_frames=70 + number)
    videos = find_videos(tmp_path)
    cached = cache_in_memory(videos, gib=0.1)
    assert all(isinstance(video, MemoryVideo) for video in cached)
    for before, after in zip(videos, cached, strict=True):
        assert (after.name, after.fps, len(after)) == (before.name, before.fps, len(before))
        everything = before.read(range(len(before)))
        assert torch.equal(after.read(range(len(after))), everything)
        assert torch.equal(after.read([69, 3]), everything[[69, 3]])
        assert after.pixels.is_shared()
    copy = cached[0].read([0])
    copy.zero_()
    assert cached[0].read([0]).max() > 0


def test_memory_is_limited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(4):
        encode(tmp_path / f"{number}.mp4", num_frames=20)
    videos = find_videos(tmp_path)
    each = 20 * 3 * 48 * 64
    cached = cache_in_memory(videos, gib=2.5 * each / 2**30)
    assert [type(video) for video in cached] == [MemoryVideo, MemoryVideo, VideoFile, VideoFile]
    assert cached[2:] == videos[2:]
    assert "the first 2 of 4 videos are kept in memory: the rest does not fit" in caplog.text
    # Small ones share their memory.
    cached = cache_in_memory(videos, gib=100 * each / 2**30)
    assert len({video.pixels.untyped_storage().data_ptr() for video in cached}) == 1  # type: ignore[attr-defined]


def test_memory_shrinks_only_what_is_larger(tmp_path: Path) -> None:
    video = VideoFile(encode(tmp_path / "a.mp4", num_frames=5))
    (small,) = cache_in_memory([video], gib=0.1, short_side=24)
    (same,) = cache_in_memory([video], gib=0.1, short_side=100)
    assert small.read([4]).shape == (1, 3, 24, 32)
    assert torch.equal(same.read([4]), video.read([4]))


def test_memory_leaves_damaged_videos_on_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frames(tmp_path / "a", moving_shapes(4, (40, 48))[0])
    write_frames(tmp_path / "b", moving_shapes(4, (40, 48))[0])
    (tmp_path / "a" / "00002.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        cached = cache_in_memory(find_videos(tmp_path), gib=0.1)
    assert [type(video) for video in cached] == [FrameFolder, MemoryVideo]
    assert caplog.text.count("not kept in memory") == 1 and "00002.png" in caplog.text


def test_only_the_wanted_stretch_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last frame of a long video must not cost the decoding of all the others."""
    video = VideoFile(encode(tmp_path / "a.mp4", num_frames=100, options={"g": "10", **B_FRAMES}))
    counted: list[int] = []
    plain: Callable = module._packets_from_key

    def counting(*arguments: object) -> object:
        for packet in plain(*arguments):
            counted.append(packet.size)
            yield packet

    monkeypatch.setattr(module, "_packets_from_key", counting)
    video.read([98, 99])
    assert len(counted) <= 11
    counted.clear()
    video.read([5, 95])
    assert len(counted) <= 22


def test_write_video_reads_back(tmp_path: Path) -> None:
    write_video(tmp_path / "a.webm", moving_shapes(9, (48, 64))[0], fps=10)
    check_reading(tmp_path / "a.webm", 9)
    assert VideoFile(tmp_path / "a.webm").fps == 10
