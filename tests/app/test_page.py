"""The page in a real browser: one server and one Chromium for all tests, which build on each other's clip."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the app needs gradio: pip install '.[app]'")
pytest.importorskip("selenium", reason="the page is tested with selenium")

from selenium.webdriver.common.keys import Keys

from tests.app.browser import User, browser, chromium
from videomac import VideoMAC
from videomac.app.clip import Clip
from videomac.data.synthetic import moving_shapes
from videomac.utils.video_writer import write_video

pytestmark = [
    pytest.mark.skipif(
        chromium() is None,
        reason="no Chromium with chromedriver on this machine: apt-get install chromium chromium-driver",
    ),
    pytest.mark.filterwarnings("default"),  # of gradio's and the server's own
]


SMALL_UPLOADS = """
from videomac import cli
from videomac.app import command
command.LARGEST_UPLOAD = "100kb"
cli.main()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pre-training, with a decoder, untrained."""
    import torch

    out = tmp_path_factory.mktemp("runs") / "tiny"
    (out / "checkpoints").mkdir(parents=True)
    model = VideoMAC("convnextv2_atto", decoder_width=16)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    saved = {"state_dict": state, "videomac": {**model.arguments, "image_size": [192, 192]}}
    torch.save(saved, out / "checkpoints" / "last.ckpt")
    return out


@dataclass(frozen=True)
class Served:
    """The command, running."""

    address: str
    temporary: Path

    def sessions(self) -> list[Path]:
        return list(self.temporary.glob("videomac-app-*/session*"))


@pytest.fixture(scope="module")
def server(video: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    temporary, port = tmp_path_factory.mktemp("served"), str(free_port())
    command = [sys.executable, "-c", SMALL_UPLOADS, "app", "--video", str(video), "--backbone", "raw-pixels", str(run)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [*command, "--port", port], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            while "Ctrl-C ends it" not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", said)
            yield Served(address, temporary)
            process.send_signal(signal.SIGINT)
            said += process.communicate(timeout=30)[0]
            assert process.returncode == 0 and "uploads are removed" in said and "Traceback" not in said, said
        finally:
            process.kill()  # whatever failed: nobody waits for it
    assert list(temporary.glob("videomac-app-*")) == []


@pytest.fixture(scope="module")
def user(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    driver = browser(1200, 900, tmp_path_factory.mktemp("downloads"))
    yield User(driver, server.address)
    driver.quit()


def overlay(user: User) -> np.ndarray:
    script = """const image = document.querySelector('#vm-stage img'), canvas = document.createElement('canvas');
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL('image/png').split(',')[1];"""
    return np.asarray(
        Image.open(io.BytesIO(base64.b64decode(user.driver.execute_script(script)))).convert("RGB")
    ).astype(int)


def count(user: User, selector: str) -> int:
    return len(user.driver.find_elements("css selector", selector))


def messages(user: User) -> str:
    return " ".join(toast.text for toast in user.driver.find_elements("css selector", ".toast-body"))


def test_label_propagate_correct_propagate_again_and_download(user: User, video: Path, server: Served) -> None:
    user.driver.find_element("id", "vm-go").click()  # nothing is labelled: that is said, and nothing happens
    user.until(lambda: "nothing is labelled yet" in messages(user))
    user.draw([(0.3, 0.5)])
    user.label(2, "<b>square</b>")
    user.draw([(0.7, 0.4)])
    user.tool("brush")
    user.draw([(0.6, 0.3), (0.7, 0.3), (0.7, 0.5)])
    user.propagate()
    assert user.frame() == 11
    user.go_to(8)
    plain = Clip(video, "").frame(8).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(overlay(user) - plain).max() > 60  # labels are drawn on a frame that nobody has labelled
    assert count(user, ".vm-plot polyline") == 3  # two points and an object
    assert count(user, ".vm-next button") > 0 and user.find(".vm-plot polyline[data-name='<b>square</b>']")
    user.find(".vm-next button").click()  # to the frame that is worth labelling next
    user.until(lambda: str(user.frame()) == user.find(".vm-next button").text)
    user.go_to(8)

    user.tool("erase")
    user.driver.execute_script("arguments[0].value = 80", user.find(".vm-size input"))
    user.draw([(0.5, 0.15), (0.7, 0.3)])  # over what has been propagated
    user.tool("brush")
    user.draw([(0.1, 0.9), (0.3, 0.9)])
    user.propagate()
    user.go_to(9)
    assert count(user, ".vm-labelled") == 2

    user.find("#vm-formats input").click()
    user.find("#vm-download").click()
    archive = downloaded(user)
    names = archive.namelist()
    assert {"points.csv", "overlay.mp4", "sheet.png", "confidence.csv", "coco.json", "given/points.csv"} <= {*names}
    assert not any(name.startswith(("work", "config")) for name in names)
    rows = list(csv.DictReader(io.TextIOWrapper(archive.open("points.csv"))))
    assert len(rows) == 24 and {row["name"] for row in rows} == {"label 1", "<b>square</b>"}
    mask = np.asarray(Image.open(archive.open("masks/00009.png")))
    assert mask.shape == (64, 96) and {*np.unique(mask)} == {0, 2}
    assert (mask[48:] == 2).any()  # what was painted below in frame 8 is in frame 9 too
    assert str(server.temporary) not in "".join(
        archive.read(name).decode("latin-1") for name in names if name[-4:] == "json"
    )


def downloaded(user: User) -> zipfile.ZipFile:
    folder = user.driver.downloads
    user.until(lambda: list(folder.glob("*.zip")) and not list(folder.glob("*.crdownload")))
    time.sleep(0.2)
    return zipfile.ZipFile(next(iter(folder.glob("*.zip"))))


def test_reconstruct(user: User, run: Path) -> None:
    user.tab(1)
    user.until(lambda: "has no decoder" in user.find("#vm-reconstruction .vm-words").text)
    choose(user, "tiny")
    user.until(lambda: count(user, "#vm-reconstruction img") == 3)
    source = user.find("#vm-reconstruction figure:nth-child(2) img").get_attribute("src")
    time.sleep(0.5)  # until the pictures have their place, and the button too
    user.find("#vm-new-mask").click()
    user.until(lambda: user.find("#vm-reconstruction figure:nth-child(2) img").get_attribute("src") != source)
    user.set_number("#vm-reconstruct-frame", 5, "#vm-reconstruction img")


def test_features(user: User) -> None:
    user.tab(2)
    user.until(lambda: count(user, "#vm-colours img") == 2)  # a frame, and the run on both sides of the comparison
    choose(user, "raw-pixels", "Compare with")
    user.until(lambda: count(user, "#vm-colours img") == 3)
    time.sleep(0.5)
    user.find("#vm-colours img").click()
    user.until(lambda: count(user, "#vm-similar img") == 8)  # in the frame and three others, by each of two
    user.tab(0)


def choose(user: User, name: str, field: str = "Backbone") -> None:
    box = user.find(f"input[aria-label='{field}']")
    box.send_keys(Keys.CONTROL + "a")
    box.send_keys(name + Keys.ENTER)


def test_a_broken_upload_is_said_and_the_page_lives_on(user: User, tmp_path: Path) -> None:
    before = user.source()
    for name, content, sentence in (("broken.mp4", b"no video at all" * 99, "broken.mp4 cannot be read"),):
        (tmp_path / name).write_bytes(content)
        user.find("#vm-top input[type=file]").send_keys(str(tmp_path / name))
        user.until(lambda said=sentence: said in messages(user))
        assert str(tmp_path) not in messages(user)
    assert user.source() == before
    write_video(tmp_path / "another.mp4", moving_shapes(4, (48, 64), seed=1)[0], 12)
    user.find("#vm-top input[type=file]").send_keys(str(tmp_path / "another.mp4"))
    user.until(lambda: user.find(".vm-scrub output").text == "0 of 3")
    assert count(user, ".vm-plot polyline") == 0


def test_what_is_too_large_or_elsewhere_is_refused(server: Served) -> None:
    url = f"{server.address}gradio_api/upload"
    large = httpx.post(url, files={"files": ("large.mp4", b"0" * 200_000)}, timeout=30)
    assert large.status_code == 413 and not list(server.temporary.rglob("large.mp4"))
    sent = httpx.post(url, files={"files": ("../../../small.mp4", b"0" * 5_000)}, timeout=30)
    (small,) = server.temporary.rglob("small.mp4")
    assert sent.status_code == 200 and small.parents[1].name == "served"
    elsewhere = httpx.get(f"{server.address}gradio_api/file=https://example.org/a.mp4", timeout=30)
    assert elsewhere.status_code == 403


def test_two_people_do_not_see_each_others_clips(user: User, server: Served) -> None:
    mine = user.driver.current_window_handle
    user.driver.switch_to.new_window("tab")
    other = User(user.driver, server.address)
    other.until(lambda: other.find(".vm-scrub output").text == "0 of 11")  # the clip of the start, without labels
    assert count(other, ".vm-labelled") == 0 and len(server.sessions()) == 2
    user.driver.close()
    user.driver.switch_to.window(mine)
    user.until(lambda: len(server.sessions()) == 1, 30)  # what the other one had is removed


def test_nothing_overflows_on_a_phone(user: User) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    user.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    for number in (0, 1, 2):
        user.tab(number)
        time.sleep(0.7)
        width = "return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
        assert user.driver.execute_script(width) <= 390
    user.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    user.tab(0)


def test_the_console_is_silent_and_nothing_comes_from_elsewhere(user: User, server: Served) -> None:
    assert [entry for entry in user.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = set()
    for entry in user.driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.add(message["params"]["request"]["url"])
    addresses = {url for url in asked if not url.startswith(("data:", "blob:", "chrome", "about:"))}
    assert addresses and all(re.match(re.escape(server.address), url) for url in addresses), addresses
