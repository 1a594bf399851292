"""A Ray cluster gives the clips that processes of one machine give, also when it loses a node in the middle."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.prepare.footage import content, left_over, scene
from videomac.errors import UserError
from videomac.prepare import cluster
from videomac.prepare.command import run, settings
from videomac.prepare.config import PrepareConfig
from videomac.prepare.folder import ClipFolder
from videomac.prepare.shots import Task
from videomac.prepare.sources import find_sources
from videomac.utils.video_writer import write_video

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install '.[ray]'")


@pytest.fixture
def order(raw: Path, tmp_path: Path) -> cluster._Order:
    """What a node is told, and a node sees, with nobody else in the game."""
    folder = ClipFolder.open(tmp_path / "clips", settings(PrepareConfig(raw, tmp_path / "clips")))
    permit = folder.temporary("0/1") / "ray-1"
    permit.parent.mkdir(parents=True)
    permit.touch()
    return cluster._Order(folder, raw, permit)


def task_of(raw: Path, name: str) -> Task:
    return Task(next(source for source in find_sources(raw) if source.name == name), "0/1")


def serve(order: cluster._Order, task: Task, wanted: str | None = None) -> dict[str, Any]:
    row = {"number": 3, "task": pickle.dumps(task)}
    return cluster.serve(pickle.dumps(order), wanted or cluster.versions(), row)


# On a node ------------------------------------------------------------------------------------------------------------


def test_a_node_does_its_task_and_at_once_when_it_is_done_already(raw: Path, order: cluster._Order) -> None:
    first = serve(order, task_of(raw, "two.mp4"))
    assert first == {"number": 3, "seconds": first["seconds"], "error": "", "lost": ""} and first["seconds"] > 2
    before = content(order.folder.path)
    raw_is_not_read_again = replace(task_of(raw, "two.mp4").source, path=raw / "broken.mp4")
    assert serve(order, Task(raw_is_not_read_again, "0/1")) == first
    after = content(order.folder.path)
    assert {name: digest for name, digest in after.items() if "ray-1-3" not in name} == {
        name: digest for name, digest in before.items() if "ray-1-3" not in name
    }
    assert len(list(order.folder.path.glob("*.mp4"))) == 2


def test_a_source_that_kills_its_process_each_time_is_given_up(raw: Path, order: cluster._Order) -> None:
    for _ in range(cluster.MOST_TRIES):
        order.count(3)
    assert (
        serve(order, task_of(raw, "two.mp4"))["lost"]
        == "the process that read it died 6 times, perhaps for lack of memory"
    )
    assert not list(order.folder.path.glob("*.mp4"))


def test_a_node_that_nobody_waits_for_stops_and_leaves_no_lock(
    raw: Path, order: cluster._Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster._Order, "require_shared", lambda self: self.permit.unlink())
    monkeypatch.setattr(cluster._Order, "count", lambda *_: 1)
    assert serve(order, task_of(raw, "two.mp4"))["error"] == "stopped"
    assert not list((order.folder.state / "locks").iterdir()) and not list(order.folder.path.glob("*.mp4"))


def test_a_node_that_lacks_something_says_what(
    raw: Path, order: cluster._Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, node = task_of(raw, "two.mp4"), re.escape(socket.gethostname())
    monkeypatch.setattr(cluster, "PATIENCE", 0.0)
    for harm, sentence in (
        ({"raw": tmp_path / "elsewhere"}, f"the node {node} does not see .*elsewhere: footage and clips must lie"),
        ({"folder": ClipFolder(tmp_path / "other", {})}, r"does not see .*other/\.prepare"),
        ({"permit": order.permit.with_name("ray-2")}, r"does not see .*ray-2"),
    ):
        assert re.search(sentence, serve(replace(order, **harm), task)["error"])  # type: ignore[arg-type]
    error = serve(order, task, "videomac 0 with PyAV 1 on abacus")["error"]
    assert re.search(f"the node {node} has videomac .* and videomac 0 with PyAV 1 on abacus is here: .* on all", error)


def test_a_node_without_videomac_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    do = cluster._by_value(b"", "")
    monkeypatch.setitem(sys.modules, "videomac.prepare", None)
    answer = do({"number": 7})
    assert answer["number"] == 7 and re.search(
        "cannot import what it needs .*: install videomac there", answer["error"]
    )


def test_a_surprise_costs_its_source_and_no_other(
    raw: Path, order: cluster._Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(cluster, "prepare_source", fail)
    assert serve(order, task_of(raw, "two.mp4"))["lost"] == "it could not be prepared (KeyError: 'surprise')"


# From where the order comes -------------------------------------------------------------------------------------------


def test_no_ray_is_one_sentence(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UserError, match=r"--ray needs Ray: pip install '\.\[ray\]' in the checkout"):
        run(PrepareConfig(raw, tmp_path / "clips", ray="auto"))


@with_ray
def test_no_cluster_is_one_sentence(raw: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # where nobody listens
        with pytest.raises(UserError, match=f"no Ray cluster can be used at {address} .*refused.*: start one with"):
            run(PrepareConfig(raw, tmp_path / "clips", ray=address))
    assert not left_over(tmp_path / "clips")


# The cluster itself ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on this machine, each with one core."""
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    try:
        made.add_node(num_cpus=1, object_store_memory=80_000_000)
        yield made
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def long_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sources of a second or two of work each."""
    import torch

    raw = tmp_path_factory.mktemp("long") / "raw"
    raw.mkdir()
    shots = [scene(24, seed, (320, 400)) for seed in range(3)]
    for number in range(4):
        write_video(raw / f"{number}.mp4", torch.cat([shots[(number + shot) % 3] for shot in range(9)]))
    return raw


def when(condition: Callable[[], object], act: Callable[[], object]) -> threading.Thread:
    """Act as soon as a condition holds, beside what the test does."""

    def watch() -> None:
        end = time.monotonic() + 60
        while not condition() and time.monotonic() < end:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def writers(clips: Path) -> set[int]:
    """The processes that are writing a journal."""
    texts = [
        path.read_text(errors="replace") for path in (clips / ".prepare" / "locks").glob("source-*") if path.exists()
    ]
    return {int(found[1]) for text in texts if (found := re.match(r"pid (\d+) on ", text))}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # Ray warns of its own defaults
@pytest.mark.skipif(os.name == "nt", reason="Ray's test cluster")
def test_a_cluster_that_loses_a_node_gives_the_same_bytes(nodes: Any, long_footage: Path, tmp_path: Path) -> None:
    clips, second = tmp_path / "clips", next(iter(nodes.worker_nodes))
    raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
    lost: set[int] = set()

    def is_at_work() -> bool:
        if not clips.exists():
            return False
        for pid in writers(clips):
            with suppress(psutil.NoSuchProcess):
                if raylet in psutil.Process(pid).parents():
                    lost.add(pid)
                    return len(list(clips.glob("*.mp4"))) >= 1
        return False

    thread = when(is_at_work, lambda: nodes.remove_node(second, allow_graceful=False))
    run(PrepareConfig(long_footage, clips, ray=nodes.address))
    thread.join()
    assert lost, "the node was at work when it died"
    run(PrepareConfig(long_footage, tmp_path / "local", workers=1))
    assert content(clips) == content(tmp_path / "local") and not left_over(clips)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")  # Ray warns of its own defaults
@pytest.mark.skipif(os.name == "nt", reason="Ray's test cluster")
def test_ctrl_c_ends_the_nodes_work_and_keeps_what_is_done(nodes: Any, long_footage: Path, tmp_path: Path) -> None:
    import _thread

    clips = tmp_path / "clips"
    thread = when(lambda: len(list(clips.glob("*.mp4"))) >= 2 if clips.exists() else False, _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: .* holds \d+ clips?, .*; the same command goes on"):
        run(PrepareConfig(long_footage, clips, ray=nodes.address))
    thread.join()
    before = content(clips)
    assert not left_over(clips)
    time.sleep(1)
    assert content(clips) == before  # nobody is at work any more
    run(PrepareConfig(long_footage, clips, workers=1))
    run(PrepareConfig(long_footage, tmp_path / "local", workers=1))
    assert content(clips) == content(tmp_path / "local")
