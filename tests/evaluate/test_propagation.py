"""Propagation against a literal implementation: full affinity matrix, mask, top-k."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videomac.evaluate.propagation import context_of, propagate, propagate_stream
from videomac.evaluate.protocols import PropagationSettings


def literal(
    features: Tensor,
    labels: Tensor,
    *,
    context_frames: int,
    topk: int,
    radius: int | None,
    temperature: float,
    window: str = "square",
    first_frame_window: bool = True,
    early_context: str = "unique",
    ties: str = "exact",
) -> Tensor:
    """The text of the protocols, one step after the other; float64."""
    features = F.normalize(features.double(), dim=1)
    frames, _, height, width = features.shape
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = (axis[:, None] - axis[None] for axis in (y, x))  # [target cell, context cell]
    if radius is None:
        inside = torch.ones_like(dy, dtype=torch.bool)
    elif window == "square":
        inside = (dy.abs() <= radius) & (dx.abs() <= radius)
    else:
        inside = (dy**2 + dx**2).sqrt() < radius
    maps = [labels.double()]
    for time in range(1, frames):
        if early_context == "unique":
            latest = [index for index in range(time - context_frames, time) if index > 0]
        elif early_context == "padded":
            latest = ([0] * context_frames + list(range(time)))[-context_frames:]
        else:
            latest = list(range(max(0, time - context_frames), time))
        context = [0, *latest]
        affinity = torch.cat([features[time].flatten(1).T @ features[index].flatten(1) for index in context], dim=1)
        mask = torch.cat([inside] * len(context), dim=1)
        if not first_frame_window:
            mask[:, : height * width] = True
        affinity = affinity.masked_fill(~mask, -torch.inf)
        source = torch.cat([maps[index].flatten(1) for index in context], dim=1)  # [labels, context cells]
        ordered, order = affinity.sort(dim=1, descending=True, stable=True)
        if ties == "exact":
            keep = torch.arange(ordered.shape[1]) < topk
        else:
            keep = ordered >= ordered[:, min(topk, ordered.shape[1]) - 1, None]
        weights = torch.softmax((ordered / temperature).masked_fill(~keep, -torch.inf), dim=1)
        maps.append(torch.einsum("nk,lnk->ln", weights, source[:, order]).view(-1, height, width))
    return torch.stack(maps)


SETTINGS = list(
    itertools.product(["square", "disc"], [True, False], ["unique", "padded", "repeated"], ["exact", "all"])
)
# A frame that is in the context twice ties with itself up to rounding, which "all" must not depend on: left to the
# test with exact cosines.
WITHOUT_ROUNDED_TIES = [setting for setting in SETTINGS if setting[2:] not in (("padded", "all"), ("repeated", "all"))]


@pytest.mark.parametrize(("window", "first_frame_window", "early_context", "ties"), WITHOUT_ROUNDED_TIES)
def test_equals_the_literal_implementation(
    window: str, first_frame_window: bool, early_context: str, ties: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, 15, 27, generator=generator, dtype=torch.float64)
    labels = torch.rand(3, 15, 27, generator=generator, dtype=torch.float64)
    settings = {
        "context_frames": 3,
        "topk": 7,
        "radius": 4,
        "temperature": 0.1,
        "window": window,
        "first_frame_window": first_frame_window,
        "early_context": early_context,
        "ties": ties,
    }
    ours = propagate(features, labels, **settings)
    torch.testing.assert_close(ours, literal(features, labels, **settings), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("window", "first_frame_window", "early_context", "ties"), SETTINGS)
def test_ties_are_decided_as_in_the_literal_implementation(
    window: str, first_frame_window: bool, early_context: str, ties: str
) -> None:
    # Few directions with exact cosines: almost every choice is between equals.
    generator = torch.Generator().manual_seed(1)
    features = F.one_hot(torch.randint(0, 3, (5, 14, 25), generator=generator), 4).movedim(-1, 1).float()
    labels = torch.rand(2, 14, 25, generator=generator)
    settings = {
        "context_frames": 2,
        "topk": 5,
        "radius": 3,
        "temperature": 0.5,
        "window": window,
        "first_frame_window": first_frame_window,
        "early_context": early_context,
        "ties": ties,
    }
    ours = propagate(features, labels, **settings)
    torch.testing.assert_close(ours.double(), literal(features, labels, **settings), rtol=0, atol=2e-6)


@pytest.mark.parametrize("ties", ["exact", "all"])
@pytest.mark.parametrize(
    ("height", "width", "topk", "radius"),
    [(1, 1, 5, 1), (2, 2, 10, 1), (3, 2, 60, 12), (1, 40, 3, 5), (30, 1, 3, None), (13, 25, 4, None), (25, 12, 30, 20)],
)
def test_odd_grids_and_more_votes_than_cells(height: int, width: int, topk: int, radius: int | None, ties: str) -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(4, 3, height, width, generator=generator, dtype=torch.float64)
    labels = torch.rand(2, height, width, generator=generator, dtype=torch.float64)
    for window, first in itertools.product(("square", "disc"), (True, False)):
        settings = {"context_frames": 2, "topk": topk, "radius": radius, "temperature": 0.2, "ties": ties}
        settings |= {"window": window, "first_frame_window": first}
        ours = propagate(features, labels, **settings)
        torch.testing.assert_close(ours, literal(features, labels, **settings), rtol=0, atol=1e-12)


def test_identical_frames_keep_the_labels() -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(1, 16, 12, 20, generator=generator).expand(8, -1, -1, -1)
    labels = F.one_hot(torch.randint(0, 4, (12, 20), generator=generator), 4).movedim(-1, 0).float()
    maps = propagate(features, labels, context_frames=3, topk=1, radius=5, temperature=0.1)
    assert torch.equal(maps, labels.expand(8, -1, -1, -1))
    # With more votes than one the copies in other frames come first, and random others weigh next to nothing.
    maps = propagate(features, labels, context_frames=3, topk=3, radius=5, temperature=0.01)
    assert torch.equal(maps.argmax(1), labels.argmax(0).expand(8, -1, -1))


def test_a_translating_texture_moves_its_labels_by_exactly_the_shift() -> None:
    generator = torch.Generator().manual_seed(4)
    world = torch.randn(8, 40, 60, generator=generator)
    truth = F.one_hot(torch.randint(0, 3, (40, 60), generator=generator), 3).movedim(-1, 0).float()
    shifts = [(time, 2 * time) for time in range(6)]
    features, labels = (
        torch.stack([source[:, y : y + 24, x : x + 30] for y, x in shifts]) for source in (world, truth)
    )
    maps = propagate(features, labels[0], context_frames=1, topk=1, radius=4, temperature=0.1)
    for time, (dy, dx) in enumerate(shifts):
        height, width = 24 - dy, 30 - dx  # what has been in view since frame 0
        assert torch.equal(maps[time, :, :height, :width], labels[time, :, :height, :width])


def test_the_context_is_as_the_protocols_say() -> None:
    assert context_of(1, 3, "unique") == (0, [])
    assert context_of(3, 3, "unique") == (0, [1, 2])
    assert context_of(5, 3, "unique") == (0, [2, 3, 4])
    assert context_of(1, 3, "padded") == (0, [0, 0, 0])
    assert context_of(2, 3, "padded") == (0, [0, 0, 1])
    assert context_of(2, 3, "repeated") == (0, [0, 1])
    assert context_of(4, 3, "repeated") == (0, [1, 2, 3])


def test_memory_does_not_grow_with_the_video() -> None:
    labels = torch.zeros(2, 6, 6)
    alive: set[int] = set()

    class Counted(Tensor):
        def __del__(self) -> None:
            alive.discard(id(self))

    def features():  # type: ignore[no-untyped-def]
        for time in range(30):
            frame = torch.randn(3, 6, 6).as_subclass(Counted)
            alive.add(id(frame))
            yield frame
            del frame
            assert len(alive) <= 2, f"{len(alive)} feature maps alive at frame {time}"

    settings = {"context_frames": 2, "topk": 2, "radius": 2, "temperature": 0.1}
    for _ in propagate_stream(features(), labels, PropagationSettings(**settings)):
        pass


def test_half_precision_is_compared_in_single() -> None:
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(4, 8, 10, 10, generator=generator).bfloat16()
    labels = torch.rand(2, 10, 10, generator=generator)
    settings = {"context_frames": 2, "topk": 3, "radius": 3, "temperature": 0.1}
    maps = propagate(features, labels, **settings)
    assert maps.dtype == torch.float32
    assert torch.equal(maps, propagate(features.float(), labels, **settings))


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    generator = torch.Generator().manual_seed(6)
    features = torch.randn(5, 16, 40, 70, generator=generator, dtype=torch.float64)
    labels = torch.rand(3, 40, 70, generator=generator, dtype=torch.float64)
    for ties in ("exact", "all"):
        settings = {"context_frames": 3, "topk": 5, "radius": 6, "temperature": 0.1, "ties": ties}
        cpu = propagate(features, labels, **settings)
        cuda = propagate(features.cuda(), labels, **settings)
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=0, atol=1e-12)


def test_misuse_is_refused() -> None:
    features, labels = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4)
    good = {"context_frames": 1, "topk": 1, "radius": 1, "temperature": 0.1}
    for name, value in (("context_frames", 0), ("topk", 0), ("radius", 0), ("temperature", 0.0)):
        with pytest.raises(ValueError, match=name):
            propagate(features, labels, **{**good, name: value})
    with pytest.raises(ValueError, match="the grids must be the same"):
        propagate(features, labels[:, :3], **good)
