"""What `videomac prepare` costs and saves: times real time on one core, and bytes an hour beside JPEG and the original.

    OMP_NUM_THREADS=1 python bench/prepare.py VIDEO [--repeat 4]

Speed is CPU time of one process, decoding, cutting, encoding and writing included, of the video repeated so many times
from end to end. JPEG are the frames of the clips at quality 95. With `--cuts VIDEO ...`, stretches of these videos,
which must have no cuts of their own, are spliced at random, and the cuts that are found are counted: ours and, if it is
installed, those of PySceneDetect.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from videomac.data.manifest import read_manifest
from videomac.prepare.collect import collect
from videomac.prepare.command import settings
from videomac.prepare.config import PrepareConfig
from videomac.prepare.folder import ClipFolder
from videomac.prepare.shots import Task, prepare_source
from videomac.prepare.sources import find_sources


def repeated(video: Path, times: int, into: Path) -> None:
    """Join copies of a video without encoding it again."""
    with av.open(str(into), "w") as out:
        stream, offset = None, 0
        for _ in range(times):
            with av.open(str(video)) as container:
                source = container.streams.video[0]
                stream = stream or out.add_stream_from_template(source)
                end = 0
                for packet in container.demux(source):
                    if packet.dts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    end = max(end, packet.pts + packet.duration)
                    out.mux(packet)
                offset = end


def prepared(raw: Path, clips: Path) -> tuple[float, float]:
    """Prepare everything in this process; seconds of footage, and of CPU time."""
    folder = ClipFolder.open(clips, settings(PrepareConfig(raw, clips)))
    start = time.process_time()
    outcomes = [prepare_source(folder, Task(source, "0/1"), lambda *_: None) for source in find_sources(raw)]
    seconds = time.process_time() - start
    collect(folder, "0/1")
    return sum(outcome.seconds for outcome in outcomes), seconds


def jpeg_bytes(clips: Path, quality: int = 95) -> int:
    """What the frames of all clips take as JPEG."""
    total = 0
    for path in clips.glob("*.mp4"):
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                buffer = io.BytesIO()
                frame.to_image().save(buffer, "JPEG", quality=quality)
                total += buffer.tell()
    return total


def found_by_scenedetect(video: Path) -> list[int] | None:
    """The frames at which PySceneDetect's AdaptiveDetector cuts; None if it is not installed."""
    try:
        import scenedetect
    except ImportError:
        return None
    scenes = scenedetect.detect(str(video), scenedetect.AdaptiveDetector(min_scene_len=1))
    return [start.frame_num for start, _ in scenes[1:]]


def write_cuts(folder: Path, videos: list[Path], frames: int, into: Path) -> list[int]:
    """Splice stretches of videos at random places; returns the frames at which they meet."""
    draw, cuts = np.random.default_rng(0), [0]
    with av.open(str(into), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(25), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 480, 272, "yuv420p"
        count = 0
        pools = []
        for path in videos:
            with av.open(str(path)) as container:
                pools.append([f.reformat(480, 272, "rgb24").to_ndarray() for f in container.decode(video=0)])
        last = -1
        while count < frames:
            which = int(draw.integers(len(pools)))
            if which == last:
                continue
            last, pool = which, pools[which]
            length = min(int(draw.integers(13, 60)), len(pool))
            first = int(draw.integers(len(pool) - length + 1))
            for picture in pool[first : first + length]:
                out.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
            count += length
            cuts.append(count)
        out.mux(stream.encode(None))
    return cuts[1:-1]


def score(found: list[int], true: list[int]) -> str:
    right = len(set(found) & set(true))
    return f"{right} of {len(true)} cuts found, {len(found) - right} too many"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cuts", type=Path, nargs="*", help="videos without a cut, to be spliced")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "raw").mkdir()
        repeated(options.video, options.repeat, root / "raw" / "long.mp4")
        rounds = [prepared(root / "raw", root / f"clips{number}") for number in range(options.rounds)]
        footage, times = rounds[0][0], [cpu for _, cpu in rounds]
        print(f"{footage:.1f} s of footage; CPU {[round(one, 2) for one in times]} s")
        print(f"times real time on one core: {footage / statistics.median(times):.1f}")
        table = read_manifest(root / "clips0")  # each clip once, however often the video was repeated
        clips = float((table["frames"].to_numpy() / table["fps"].to_numpy()).sum())
        for kind, size, seconds in (
            ("original", (root / "raw" / "long.mp4").stat().st_size, footage),
            ("JPEG, quality 95", jpeg_bytes(root / "clips0"), clips),
            ("clips", int(table["bytes"].to_numpy().sum()), clips),
        ):
            print(f"{kind}: {size / seconds * 3600 / 2**30:.2f} GiB an hour")
        if options.cuts:
            true = write_cuts(root, options.cuts, 3000, root / "cuts.mp4")
            own, start = cuts_of(root / "cuts.mp4"), time.process_time()
            print(f"cuts, ours: {score(own, true)}")
            if (theirs := found_by_scenedetect(root / "cuts.mp4")) is not None:
                print(f"cuts, AdaptiveDetector: {score(theirs, true)} ({time.process_time() - start:.1f} s)")


def cuts_of(video: Path) -> list[int]:
    """The frames at which `videomac prepare` cuts."""
    from videomac.prepare.cuts import find_cuts
    from videomac.prepare.encode import Shrinker
    from videomac.prepare.footage import Footage

    return [n for n, (_, new) in enumerate(find_cuts(map(Shrinker(), Footage(video)))) if new][1:]


if __name__ == "__main__":
    main()
