"""The page of `videomac app` in a real browser: its pictures in the docs, and how quick it is.

    make demo && python -m benchmarks.app_page pictures --run runs/demo --out docs/assets
    python -m benchmarks.app_page speed --video CLIP --backbone convnextv2_atto

Both need Chromium with chromedriver.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from tests.app.browser import User, browser

import videomac
from videomac.app.backbones import Backbones
from videomac.app.command import Server
from videomac.app.config import AppConfig
from videomac.demo.labeling import CLIP, DRAWN
from videomac.evaluate.images import read_ids

PORT = 7899
LABELLED, SHOWN = 44, 50
POINTS = {"left ear": (0.326, 0.05), "right ear": (0.418, 0.06), "nose": (0.378, 0.22)}
"""Points on the rabbit of the labelled frame, as shares of its width and height."""
BRUSH = 12
"""Pixels of the screen."""


def save(driver: Any, path: Path) -> None:
    time.sleep(0.5)
    driver.save_screenshot(str(path))
    with Image.open(path) as picture:
        smaller = _without_margin(picture.convert("RGB")).quantize(192, dither=Image.Dither.FLOYDSTEINBERG)
    smaller.save(path, optimize=True)
    print(f"{path}: {smaller.width}x{smaller.height}, {path.stat().st_size / 1e3:.0f} KB")


def _without_margin(picture: Image.Image) -> Image.Image:
    """A picture without the empty lines at its end."""
    drawn = ImageChops.difference(picture, Image.new("RGB", picture.size, picture.getpixel((0, 0)))).getbbox()
    return picture if drawn is None else picture.crop((0, 0, picture.width, min(picture.height, drawn[3] + 24)))


def strokes(mask: np.ndarray, width: float) -> Iterator[list[tuple[float, float]]]:
    """What a hand with a brush does to fill a shape: one stroke across it in every line; the width is a share."""
    height, columns = mask.shape
    brush = width * columns
    for row in np.arange(brush / 2, height, 0.8 * brush):
        line = np.flatnonzero(np.diff(mask[int(row)].astype(int), prepend=0, append=0))
        for left, right in line.reshape(-1, 2):
            if right - left > brush:
                ends = (left + brush / 2, right - brush / 2)
                yield [(x / columns, row / height) for x in ends]


def pictures(run: Path, out: Path) -> None:
    server = Server(AppConfig(video=run / "clips" / CLIP, backbone=[str(run)], port=PORT))
    driver = browser(1200, 940)
    try:
        user = User(driver, server.address)
        user.go_to(LABELLED)
        user.label(1, "rabbit")
        user.tool("brush")
        driver.execute_script("arguments[0].value = arguments[1]", user.find(".vm-size input"), BRUSH)
        for stroke in strokes(read_ids(DRAWN / f"{LABELLED:05d}.png") > 0, BRUSH / user.find("canvas").size["width"]):
            user.draw(stroke)
        user.tool("point")
        for number, (name, place) in enumerate(POINTS.items(), start=2):
            user.label(number, name)
            user.draw([place])
        user.propagate()
        user.go_to(SHOWN)
        save(driver, out / "app-label.png")
        user.tab(1)
        user.until(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#vm-reconstruction img")) == 3)
        user.set_number("#vm-reconstruct-frame", LABELLED, "#vm-reconstruction img")
        save(driver, out / "app-reconstruct.png")
        user.tab(2)
        user.until(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#vm-colours img")) == 3)
        user.set_number("#vm-feature-frame", LABELLED, "#vm-colours img")
        image = user.find("#vm-colours img")
        ActionChains(driver).move_to_element_with_offset(image, -40, 0).click().perform()
        user.until(lambda: len(driver.find_elements(By.CSS_SELECTOR, "#vm-similar img")) == 8)
        save(driver, out / "app-features.png")
    finally:
        driver.quit()
        server.close()


def speed(video: Path, backbone: str, stage: int) -> None:
    Backbones.stage_for = staticmethod(lambda name: stage)  # what the page begins with
    server = Server(AppConfig(video=video, backbone=[backbone], port=PORT))
    driver = browser(1200, 900)
    try:
        user = User(driver, server.address)
        user.draw([(0.5, 0.5)])
        user.tool("brush")
        user.draw([(0.4, 0.5), (0.5, 0.5)])
        for turn in ("first time", "again"):
            user.go_to(0)
            begun = time.perf_counter()
            user.find("#vm-go").click()
            user.until(lambda: (user.frame() or 0) > 0)
            first = time.perf_counter() - begun
            user.until(lambda: not user.busy(), 600)
            whole = time.perf_counter() - begun
            print(f"{turn}: {first:.2f} s from the click to the first propagated frame, {whole:.2f} s to the last")
            print(f"  {user.find('.vm-words').text}")
        session = next(one for one in server.sessions._sessions.values() if one.labelling.labels.frames)
        given = session.folder / "given"
        labels = [given / "masks", given / "points.csv"]
        with tempfile.TemporaryDirectory() as folder:
            found = videomac.propagate_video(
                video, labels=labels, backbone=backbone, stage=stage, out=Path(folder, "out")
            )
            print(f"the command: {found['frames_per_second']} frames/s")
    finally:
        driver.quit()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pictures")
    one.add_argument("--run", type=Path, default=Path("runs/demo"))
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("speed")
    two.add_argument("--video", type=Path, required=True)
    two.add_argument("--backbone", default="convnextv2_atto")
    two.add_argument("--stage", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.command == "pictures":
        pictures(arguments.run, arguments.out)
    else:
        speed(arguments.video, arguments.backbone, arguments.stage)


if __name__ == "__main__":
    main()
