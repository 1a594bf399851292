"""Cuts are found where they are, and fast motion is none."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

from videomac.prepare.cuts import Picture, find_cuts


def picture(thumbnail: np.ndarray, number: int = 0, after_gap: bool = False, width: int = 96) -> Picture:
    return Picture(VideoFrame(width, 64, "yuv420p"), thumbnail, number / 25, after_gap)


def film(lengths: list[int], motion: float, seed: int = 0) -> list[Picture]:
    """Shots of noise that drifts by so much from frame to frame."""
    draw, made = np.random.default_rng(seed), []
    for length in lengths:
        scene = draw.uniform(30, 220, (3, 36, 64))
        for _ in range(length):
            scene = np.clip(scene + draw.uniform(-motion, motion, scene.shape), 0, 255)
            made.append(picture(scene.astype(np.uint8), len(made)))
    return made


def cuts(pictures: list[Picture]) -> list[int]:
    judged = list(find_cuts(pictures))
    assert [one for one, _ in judged] == pictures  # all of them, in order
    return [number for number, (_, is_new) in enumerate(judged) if is_new]


def test_every_shot_begins_with_its_first_frame() -> None:
    assert cuts(film([20, 13, 30], motion=4)) == [0, 20, 33]


def test_fast_motion_and_small_changes_are_no_cuts() -> None:
    assert cuts(film([40], motion=60)) == [0]
    calm = film([20], motion=0)
    brighter = [picture(np.minimum(one.thumbnail.astype(int) + 5, 255).astype(np.uint8)) for one in calm]
    assert cuts([*calm, *brighter]) == [0]


def test_what_follows_upon_damage_or_has_another_size_is_a_new_shot() -> None:
    calm = film([1], motion=0)[0].thumbnail
    pictures = [picture(calm, after_gap=number == 5, width=96 if number < 8 else 100) for number in range(12)]
    assert cuts(pictures) == [0, 5, 8]


def test_few_frames_are_judged_too() -> None:
    assert cuts([]) == [] and cuts(film([1], 0)) == [0] and cuts(film([1, 1], 0)) == [0, 1]
