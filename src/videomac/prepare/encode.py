"""Frames to a clip that reads fast: small, H.264, a key frame every 12 frames, the same bytes each time."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from videomac.prepare.cuts import Picture
from videomac.prepare.footage import Shown

SHORT_SIDE = 256
"""Pixels; smaller footage keeps its size."""
GOP = 12
"""Frames from one key frame to the next: frame 12 k is one, and nothing refers across it."""
CRF = 18
"""x264's quality: at 256 pixels a fifth of the bytes of JPEG at quality 95, at 39 dB (`bench/prepare.py`)."""
OPTIONS = {
    "preset": "veryfast",
    "crf": str(CRF),
    # Without CABAC and the loop filter a frame decodes twice as fast, for a quarter more bytes.
    "tune": "fastdecode",
    # Packet k is frame k: a group of pictures is read from its start and left at any frame.
    "bf": "0",
    # One thread, because more of them move the rate control's decisions, and with them the bytes. No AVX-512, with
    # which x264 decides otherwise than without, and not always the same; machines of one cluster may differ in it.
    "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0:open-gop=0:threads=1:lookahead-threads=1:asm=sse4.2",
}
_ACCURATE_RND, _BITEXACT = 1 << 18, 1 << 19  # FFmpeg's SWS_ACCURATE_RND and SWS_BITEXACT: the same on every processor
_SCALING = int(Interpolation.AREA) | _ACCURATE_RND | _BITEXACT
_THUMBNAIL = (64, 36)


def clip_size(height: int, width: int) -> tuple[int, int]:
    """Height and width with a short side of `SHORT_SIDE` or less, both even, never larger than they were."""
    shrink = min(1.0, SHORT_SIDE / min(height, width))
    even = [max(2, int(side * shrink + 1e-6) // 2 * 2) for side in (height, width)]
    return even[0], even[1]


class Shrinker:
    """Makes frames small, upright and yuv420p, as a clip takes them; each source has its own."""

    def __init__(self) -> None:
        """Keep FFmpeg's tables from frame to frame."""
        self._scale, self._finish, self._squeeze = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def __call__(self, shown: Shown) -> Picture:
        """Shrink one frame."""
        frame = shown.frame
        height, width = clip_size(frame.height, frame.width)
        turns = round(frame.rotation / 90) % 4
        # Turned footage goes through full colour, because halved colour does not turn.
        wanted = "yuv444p" if turns else "yuv420p"
        # One thread: PyAV would start a pool for every small picture.
        small = self._scale.reformat(frame, width, height, wanted, interpolation=_SCALING, threads=1)
        if turns:
            turned = np.ascontiguousarray(np.rot90(small.to_ndarray(), turns, axes=(1, 2)), dtype=np.uint8)
            upright = VideoFrame.from_ndarray(turned, format="yuv444p")
            upright.colorspace, upright.color_range = small.colorspace, small.color_range
            small = self._finish.reformat(upright, format="yuv420p", interpolation=_SCALING, threads=1)
        squeezed = self._squeeze.reformat(small, *_THUMBNAIL, "yuv444p", interpolation=_SCALING, threads=1)
        return Picture(small, squeezed.to_ndarray(), shown.seconds, shown.after_gap)


class ClipWriter:
    """Encodes the frames of one clip into memory, a few megabytes at most."""

    def __init__(self, first: VideoFrame, rate: Fraction) -> None:
        """Start a clip of frames like the first one, which is yet to be added."""
        self._frames = 0
        self._buffer = io.BytesIO()
        # Neither the time nor the version of FFmpeg shall stand in the file.
        self._container = av.open(self._buffer, "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream("libx264", rate=rate, options=OPTIONS)
        self._stream.height, self._stream.width = first.height, first.width
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.thread_count = 1
        context.time_base = 1 / rate
        # Said as in the source, so that the clip is shown in the source's colours.
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc

    def add(self, frame: VideoFrame) -> None:
        """Encode the next frame."""
        frame.pts, frame.time_base = self._frames, self._stream.codec_context.time_base
        frame.pict_type = 0  # else x264 would make a key frame where the source had one
        self._container.mux(self._stream.encode(frame))
        self._frames += 1

    def finish(self) -> bytes:
        """Return the bytes of the mp4 file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return index_first(self._buffer.getvalue())

    def abandon(self) -> None:
        """Free what the encoder holds."""
        self._container.close()


def index_first(data: bytes) -> bytes:
    """Put the index of an mp4 file before its frames, so that a remote file is opened with one read.

    FFmpeg's own `+faststart` does so only for files that have a path.
    """
    boxes = _boxes(data, 0, len(data))
    index = next(box for box in boxes if box[0] == b"moov")
    frames = next(box for box in boxes if box[0] == b"mdat")
    if index[1] < frames[1]:
        return data
    moov = bytearray(data[index[1] : index[2]])
    for start, end in _offset_tables(moov):
        (count,) = struct.unpack_from(">I", moov, start + 12)
        for position in range(start + 16, min(start + 16 + 4 * count, end), 4):
            (offset,) = struct.unpack_from(">I", moov, position)
            struct.pack_into(">I", moov, position, offset + len(moov))
    head = next(box for box in boxes if box[0] == b"ftyp")[2]
    return data[:head] + bytes(moov) + data[head : index[1]] + data[index[2] :]


def _boxes(data: bytes | bytearray, start: int, end: int) -> list[tuple[bytes, int, int]]:
    """(type, start, end) of the boxes that lie side by side in this stretch of an mp4 file."""
    found = []
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        found.append((kind, start, start + size))
        start += size
    return found


def _offset_tables(moov: bytearray) -> list[tuple[int, int]]:
    """Where the tables (`stco`) of the frames' places lie; files of 4 GiB would have `co64`, and no clip is one."""
    stretches = [(0, len(moov))]
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco"):
        inner = [box for start, end in stretches for box in _boxes(moov, start, end) if box[0] == kind]
        stretches = [(start + (0 if kind == b"stco" else 8), end) for _, start, end in inner]
    return stretches
