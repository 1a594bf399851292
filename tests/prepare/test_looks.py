"""What looks static, and what looks alike."""

from __future__ import annotations

import numpy as np

from videomac.prepare.looks import ALIKE, BITS, fingerprint, is_static, look_alikes


def pictures(seed: int, count: int = 3) -> list[np.ndarray]:
    draw = np.random.default_rng(seed)
    return [np.kron(draw.integers(0, 256, (9, 16)), np.ones((4, 4))).astype(np.uint8) for _ in range(count)]


def test_a_shot_is_static_if_hardly_a_pixel_changes() -> None:
    still = pictures(0, 1) * 3
    assert is_static(still) and is_static(still[:1])
    noisy = [np.clip(one + np.random.default_rng(n).integers(-3, 4, one.shape), 0, 255) for n, one in enumerate(still)]
    assert is_static([one.astype(np.uint8) for one in noisy])
    moved = still[0].copy()
    moved[:3, :3] ^= 255
    assert not is_static([still[0], still[0], moved])


def test_the_fingerprint_knows_a_picture_again_when_it_is_brighter_and_noisy() -> None:
    for seed in range(5):
        one = pictures(seed)
        other = [np.clip(p * 0.9 + 12 + np.random.default_rng(9).normal(0, 1, p.shape), 0, 255) for p in one]
        assert look_alikes([fingerprint(one), fingerprint([p.astype(np.uint8) for p in other])]) == {1: 0}
    assert look_alikes([fingerprint(pictures(seed)) for seed in range(20)]) == {}


def test_look_alikes_are_those_of_comparing_all_with_all() -> None:
    draw = np.random.default_rng(0)
    bits = [draw.integers(0, 2, BITS) for _ in range(12)]
    for _ in range(150):  # near copies, by around as many bits as count
        copy = bits[draw.integers(len(bits))].copy()
        copy[draw.choice(BITS, draw.integers(0, 2 * ALIKE), replace=False)] ^= 1
        bits.append(copy)
    expected = {}
    for number, one in enumerate(bits):
        alike = [earlier for earlier in range(number) if (bits[earlier] != one).sum() <= ALIKE]
        if alike:
            expected[number] = alike[0]
    assert expected
    assert look_alikes([np.packbits(one).tobytes().hex() for one in bits]) == expected
