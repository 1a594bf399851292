"""How fast training reads a prepared folder, and what a very large one costs at the start.

    python bench/prepared.py rate --clips CLIPS [--image_size 224] [--batches 40]
    python bench/prepared.py start --clips CLIPS [--number 1000000]

`rate` reads micro-batches of 32 of a batch of 512 in this process, one thread, as a data process of `pretrain` does,
and prints pairs a second of CPU time: decoded alone, and with crop, resize, normalisation and mask. `start` makes up a
manifest whose clips all are copies of the first one of CLIPS, and goes the way of `pretrain` to the first batch; the
clips of that batch are made links to the real one. It prints the seconds, the memory that the process has gained, and
what it costs to look up a batch's places in an epoch of 10^9 pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from videomac.data.manifest import MANIFEST, read_manifest
from videomac.data.permutation import KeyedPermutation
from videomac.models.videomac import VideoMAC
from videomac.train.config import PretrainConfig
from videomac.train.data import PretrainingData

BATCH = 32


def data_of(clips: Path, image_size: int) -> PretrainingData:
    """The data of a run of `pretrain` on these clips."""
    config = PretrainConfig(
        data=clips, backbone="test_convnext", out=clips / "never", image_size=image_size, global_batch_size=512,
        accumulate=512 // BATCH, held_out=0, workers=0, recipe="small",
    )  # fmt: skip
    return PretrainingData(config, VideoMAC("test_convnext", decoder_width=16))


def rate(clips: Path, image_size: int, batches: int) -> str:
    """Pairs a second of CPU time, read alone and in full, batches taken in turns."""
    data = data_of(clips, image_size)
    pairs, order = data.samples, iter(data._whole_run(0, 0, 1))
    decoding, everything = [], []
    for _ in range(batches):
        begun = time.process_time()
        list(pairs.__getitems__(next(order)))
        everything.append(time.process_time() - begun)
        keys = next(order)
        begun = time.process_time()
        together = pairs._read_together(keys)
        for places in together:
            list(pairs._read_at_once(keys, places))
        alone = set(range(len(keys))) - {place for places in together for place in places}
        for place in alone:
            pairs._read(*keys[place])
        decoding.append(time.process_time() - begun)
    per_second = [BATCH / statistics.median(times) for times in (decoding, everything)]
    return f"{len(pairs):,} pairs, {image_size} px: decoded {per_second[0]:.0f} a second, in full {per_second[1]:.0f}"


def start(clips: Path, number: int) -> str:
    """Seconds and memory from the command to the first batch of a folder of so many clips."""
    one = read_manifest(clips).slice(0, 1)
    real = clips / one["name"][0].as_py()
    with tempfile.TemporaryDirectory(dir=clips.parent) as folder:
        large = Path(folder)
        columns = {name: pa.repeat(one[name][0], number).cast(one.schema.field(name).type) for name in one.column_names}
        columns["name"] = pa.array([f"{index:032x}.mp4" for index in range(number)])
        pq.write_table(pa.table(columns, schema=one.schema), large / MANIFEST)
        del columns
        process = psutil.Process()
        before, begun = process.memory_info().rss, time.perf_counter()
        data = data_of(large, 224)
        keys = next(iter(data._whole_run(0, 0, 1)))
        for _, index in keys:
            video, _ = data.samples.locate(index)
            if not video.path.exists():
                os.link(real, video.path)
        data.samples.__getitems__(keys)
        seconds, gained = time.perf_counter() - begun, process.memory_info().rss - before
    permutation, places = KeyedPermutation(10**9, 0, 1), np.arange(5 * 10**8, 5 * 10**8 + 4096)
    begun = time.process_time()
    permutation(places)
    looked_up = time.process_time() - begun
    return (
        f"{number:,} clips, {len(data.samples):,} pairs: first batch after {seconds:.1f} s, {gained / 2**20:.0f} MiB; "
        f"4,096 places of 10^9 looked up in {1000 * looked_up:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("rate", "start"))
    parser.add_argument("--clips", type=Path, required=True, help="a folder made by `videomac prepare`")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--number", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.what == "rate":
        print(rate(options.clips, options.image_size, options.batches))
    else:
        print(start(options.clips, options.number))


if __name__ == "__main__":
    main()
