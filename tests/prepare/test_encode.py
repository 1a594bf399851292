"""Frames to the bytes of a clip."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tests.prepare.footage import scene
from videomac.prepare.encode import GOP, ClipWriter, Shrinker, clip_size, index_first
from videomac.prepare.footage import Shown


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (256, 454)), ((1280, 720), (454, 256)), ((480, 480), (256, 256)), ((64, 97), (64, 96)),
     ((1, 1), (2, 2)), ((255, 3000), (254, 3000)), ((2160, 3840), (256, 454))],
)  # fmt: skip
def test_the_short_side_is_256_or_what_it_was(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert clip_size(*size) == expected


def clip(frames: int = 30, seed: int = 0) -> bytes:
    shrink = Shrinker()
    pictures = scene(frames, seed, (300, 420)).permute(0, 2, 3, 1).contiguous().numpy()
    small = [shrink(Shown(VideoFrame.from_ndarray(one, format="rgb24"), 0.0, False)).frame for one in pictures]
    writer = ClipWriter(small[0], Fraction(30000, 1001))
    for frame in small:
        writer.add(frame)
    return writer.finish()


def test_the_same_frames_are_the_same_bytes() -> None:
    first = clip()
    assert all(clip() == first for _ in range(5)) and clip(seed=1) != first


def test_the_index_stands_first_and_tells_the_right_places() -> None:
    data = clip()
    assert data.index(b"moov") < data.index(b"mdat") and index_first(data) == data
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(30000, 1001)
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert all(data[packet.pos : packet.pos + packet.size] == bytes(packet) for packet in packets)
        assert [n for n, packet in enumerate(packets) if packet.is_keyframe] == list(range(0, 30, GOP))


def test_every_group_of_pictures_stands_alone() -> None:
    """Frames from 12 on are the same whether the first group was decoded before or not."""
    data = clip()
    with av.open(io.BytesIO(data)) as container:
        whole = [frame.to_ndarray() for frame in container.decode(video=0)]
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        container.seek(stream.index_entries[GOP].timestamp, stream=stream)
        late = [frame.to_ndarray() for frame in container.decode(stream)]
    assert len(late) == 30 - GOP and all(np.array_equal(a, b) for a, b in zip(late, whole[GOP:], strict=True))
