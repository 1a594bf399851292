"""A made-up data set: noisy squares of one colour, in three classes that a network tells apart in a few steps."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}


def write_images(root: Path, *, train: int = 8, val: int = 4) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name, colour in COLOURS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.normal(0, 40, (40, 48, 3))
                Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype("uint8")).save(
                    folder / f"{number}.png"
                )
    return root
