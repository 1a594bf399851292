"""`videomac report`: one page that needs nothing but itself, looked at by a browser."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import videomac
from tests.classify.folders import write_images
from videomac import cli
from videomac.evaluate.synthetic import scene, write_davis
from videomac.reporting.charts import Series, chart
from videomac.reporting.command import run
from videomac.reporting.config import ReportConfig
from videomac.reporting.reading import read_part, without_folders


@pytest.fixture(scope="module")
def folders(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run and its evaluation."""
    root = tmp_path_factory.mktemp("report")
    write_davis(root / "davis", {f"scene{n}": scene(6, (64, 96), 2, seed=n) for n in range(3)})
    videomac.evaluate.davis(small_run, data=root / "davis", out=root / "eval", size="64x96", stride=16, topk=3)
    return {"run": small_run, "eval": root / "eval", "davis": root / "davis"}


@pytest.fixture(scope="module")
def page(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    return run(ReportConfig(folders["run"], include=[folders["eval"]], out=out, videos=2))


def test_the_page_holds_what_the_folders_hold(page: Path, folders: dict[str, Path]) -> None:
    text = page.read_text()
    metrics = json.loads((folders["run"] / "metrics.json").read_text())
    numbers = json.loads((folders["eval"] / "metrics.json").read_text())
    environment = json.loads((folders["run"] / "environment.json").read_text())
    for stated in (
        f"<b>{metrics['held_out_loss']:.4g}</b>",
        f"<b>{100 * numbers['J&F-Mean']:.1f}</b>",
        "scene0_1", "scene2_2", "<th scope=\"row\">mask_ratio</th><td>0.5</td>", environment["torch"],
        "2 of 3 videos are shown",
    ):  # fmt: skip
        assert stated in text, stated
    assert text.count("<svg") == 4, "losses, feature deviation, learning rate, momentum"
    assert text.count("data:video/mp4;base64,") == 2 and text.count("data:image/png;base64,") == 1 + 2
    for series in ("online loss", "target loss", "consistency loss", "held out loss"):
        assert f">{series}</text>" in text
    assert not re.search(r"<script|@import|(?:src|href)=\"(?!data:|#)", text), "nothing is loaded, nothing runs"


def test_what_was_made_of_the_weights_is_on_the_page(folders: dict[str, Path], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    common = {"data": images, "backbone": str(folders["run"]), "image_size": 32, "workers": 0}
    trained = videomac.finetune(
        **common, out=tmp_path / "classes", epochs=2, global_batch_size=8, trainer={"accelerator": "cpu"}
    )
    probed = videomac.probe(**common, out=tmp_path / "probe")
    page = run(ReportConfig(folders["run"], include=[tmp_path / "classes", tmp_path / "probe"], out=tmp_path / "page"))
    text = page.read_text()
    assert "Fine-tuning" in text and "confusion" in text and f"<b>{trained['top1']:.4g}</b>" in text
    assert "Linear probe and k-NN" in text and f"<b>{probed['linear_top1']:.4g}</b>" in text
    assert text.count("videomac finetune --config") == 1 and text.count("videomac probe --config") == 1


def test_a_setting_of_one_is_a_number(folders: dict[str, Path]) -> None:
    settings = read_part(folders["run"], 0).settings
    assert settings["frame_gap"] == "1" and settings["workers"] == "0"
    assert settings["symmetric"] == "yes" and settings["hours"] == "not set"


def test_the_command_of_an_evaluation_makes_it_again(folders: dict[str, Path]) -> None:
    command = shlex.split(read_part(folders["eval"], 0).command)
    assert command[:3] == ["videomac", "eval", "davis"]
    config = cli.parse("eval davis", command[3:])
    settings = yaml.safe_load((folders["eval"] / "config.yaml").read_text())
    for key in config.resolved.__dataclass_fields__:
        if key != "name":
            assert getattr(config.resolved, key) == settings[key], key
    assert config.topk == 3 and config.data == Path(folders["davis"].name)
    assert config.backbone == folders["run"].name and config.network == "online"


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        ("timm", ["--backbone", "resnet18", "--pretrained", "true"]),
        ("random (seed 3)", ["--backbone", "resnet18", "--seed", "3"]),
        ("w.pth", ["--backbone", "resnet18", "--weights", "w.pth"]),
        ("runs/a (target)", ["--backbone", "runs/a", "--network", "target"]),
    ],
)
def test_where_weights_are_from_becomes_options(
    folders: dict[str, Path], tmp_path: Path, weights: str, options: list[str]
) -> None:
    settings = yaml.safe_load((folders["eval"] / "config.yaml").read_text())
    settings |= {"weights": weights, "seed": 3, "features": {**settings["features"], "backbone": "resnet18"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    words = shlex.split(read_part(tmp_path, 0).command)
    assert words[5 : 5 + len(options)] == options


def test_the_command_of_a_run_reads_its_config(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders["run"].parent)
    folders = {"run": Path(folders["run"].name)}
    words = shlex.split(read_part(folders["run"], 0).command)
    config = cli.parse(words[1], words[2:])
    assert config.size == (64, 64) and config.epochs == 2 and config.out == Path("NEW")


def test_the_page_names_no_folder_of_this_machine(page: Path, folders: dict[str, Path]) -> None:
    settings = yaml.safe_load((folders["run"] / "config.yaml").read_text())
    assert Path(settings["data"]).is_absolute() and Path(settings["out"]).is_absolute()
    text = page.read_text()
    assert str(folders["run"].parent) not in text and str(Path(settings["data"]).parent) not in text
    assert not re.search(r"/(?:tmp|home|root|Users)/", re.sub(r"base64,[^\"]*", "", text))
    assert f"<td>{Path(settings['data']).name}</td>" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/data/jane doe/my clips/", "my clips"),
        ("/data/jane/run (online)", "run (online)"),
        ("~/clips", "clips"),
        ("C:\\Users\\jane\\clips", "clips"),
        ("D:/clips/a.mp4", "a.mp4"),
        ("local-dir:/data/jane/backbone", "local-dir:backbone"),
        ("runs/mine", "runs/mine"),
        ("hf-hub:timm/resnet50", "hf-hub:timm/resnet50"),
        ("24 / 7", "24 / 7"),
        (["/a/b", {"c": "/d/e"}], ["b", {"c": "e"}]),
        (0.5, 0.5),
    ],
)
def test_absolute_paths_lose_their_folders(value: Any, shown: Any) -> None:
    assert without_folders(value) == shown


def test_what_was_left_out_is_a_section_whose_names_cannot_break_the_page(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(folders["run"] / "config.yaml", tmp_path)
    (tmp_path / "skipped.csv").write_text('name,reason\n"<b>ü.mts",Invalid data\n2 other files,no videos\n')
    text = run(ReportConfig(tmp_path)).read_text(encoding="utf-8")
    assert "Not used" in text and "<td>&lt;b&gt;ü.mts</td><td>Invalid data</td>" in text and "<b>ü" not in text
    assert "Not used" not in run(ReportConfig(folders["run"], out=tmp_path, overwrite=True)).read_text()


def test_a_run_that_has_not_finished_is_shown_as_far_as_it_got(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.csv"):
        shutil.copy(folders["run"] / name, tmp_path)
    text = run(ReportConfig(tmp_path)).read_text()
    assert "has not finished" in text and "<svg" in text and "The environment of this run was not recorded" in text
    assert str(run(ReportConfig(tmp_path, overwrite=True))) == str(tmp_path / "report.html")


def test_text_of_a_folder_cannot_break_the_page(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"command": "probe", "backbone": "<img src=x onerror=alert(1)>"})
    )
    text = run(ReportConfig(tmp_path)).read_text()
    assert "<img src=x" not in text and "&lt;img src=x" in text


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "holds no run (no config.yaml)"),
        ({"config.yaml": "- a list"}, "does not say which command of videomac wrote it"),
        ({"config.yaml": "a: [1"}, "cannot be read"),
        ({"config.yaml": "a: 1"}, "does not say which command of videomac wrote it"),
        ({"config.yaml": "command: probe", "metrics.json": "{"}, "metrics.json is damaged"),
        ({"config.yaml": "command: probe", "report.html": ""}, "already holds a run (report.html)"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, files: dict[str, str], sentence: str, capsys: Any) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", str(tmp_path)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in error and error.count("\n") == 1


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; the tests are skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with chromedriver on this machine: apt-get install chromium chromium-driver")
    selenium = pytest.importorskip("selenium.webdriver")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_shows_it_offline(browser: Any, page: Path, width: int, height: int, scheme: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme_ = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_)
    browser.get_log("performance")
    browser.get(page.as_uri())
    videos = "[...document.querySelectorAll('video')]"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(f"return {videos}.every(v => v.readyState >= 2)"))

    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
    images = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(images) == 3 and all(images)
    durations = browser.execute_script(f"return {videos}.map(v => v.duration)")
    assert durations == pytest.approx([6 / 12] * 2, abs=0.01)
    scroll = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert scroll[0] <= scroll[1] == width, "no horizontal scrolling"
    requests = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert requests and all(url.startswith(("data:", page.as_uri())) for url in requests)
    ink, paper = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")
    text = browser.execute_script("return getComputedStyle(document.querySelector('svg text')).fill")
    assert text == ink, "the charts take the page's colours"


def test_the_videos_play(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    played = browser.execute_async_script(
        "const done = arguments[0], video = document.querySelector('video');"
        "video.addEventListener('timeupdate', () => { if (video.currentTime > 0) done(video.currentTime) });"
        "video.play().catch(error => done(String(error)))"
    )
    assert isinstance(played, float) and played > 0


# Charts ---------------------------------------------------------------------------------------------------------------


def test_a_title_cannot_break_the_page_and_begins_no_formula() -> None:
    nasty = 'x"><script>alert(1)</script> $\\frac{1}$'
    drawn = chart(nasty, [Series(nasty, [1, 2], [0.5, 0.25]), Series("b", [1, 2], [1, 2])], nasty, "salt")
    assert "<script" not in drawn and "&lt;script&gt;" in drawn
    assert ElementTree.fromstring(drawn).get("aria-label") == nasty
