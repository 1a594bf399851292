"""Somebody with a mouse, before the page of `videomac app` in headless Chromium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait


def chromium() -> tuple[str, str] | None:
    """Browser and driver, if this machine has both."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    return None if found is None or driver is None else (found, driver)


def browser(width: int, height: int, downloads: Path | None = None) -> Any:
    found = chromium()
    assert found is not None
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    arguments = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars")
    for argument in (*arguments, f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if downloads is not None:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    driver.downloads = downloads  # type: ignore[attr-defined]
    return driver


class User:
    """Somebody with a mouse."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)
        self.until(lambda: self.frame() == 0)

    def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        # A page that is redrawn while it is looked at is looked at again.
        redrawn = (NoSuchElementException, StaleElementReferenceException)
        wait = WebDriverWait(self.driver, seconds, poll_frequency=0.02, ignored_exceptions=redrawn)
        wait.until(lambda _: condition())

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def frame(self) -> int | None:
        screens = self.driver.find_elements(By.CSS_SELECTOR, "#vm-stage .vm-screen[data-frame]")
        return int(screens[0].get_attribute("data-frame")) if screens else None

    def source(self) -> str:
        return str(self.find("#vm-stage img").get_attribute("src"))

    def changes(self, action: Callable[[], Any]) -> None:
        before = self.source()
        action()
        self.until(lambda: self.source() != before)

    def go_to(self, frame: int) -> None:
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.driver.execute_script(script, self.find(".vm-frame"), frame)
        self.until(lambda: self.frame() == frame)

    def draw(self, places: Sequence[tuple[float, float]]) -> None:
        canvas = self.find("#vm-stage canvas")
        width, height = canvas.size["width"], canvas.size["height"]
        at = [(round((u - 0.5) * width), round((v - 0.5) * height)) for u, v in places]
        actions = ActionChains(self.driver, duration=2).move_to_element_with_offset(canvas, *at[0]).click_and_hold()
        for place in at[1:]:
            actions = actions.move_to_element_with_offset(canvas, *place)
        self.changes(actions.release().perform)

    def tool(self, name: str) -> None:
        self.find(f"[data-tool={name}]").click()

    def label(self, number: int, name: str) -> None:
        rows = self.driver.find_elements(By.CSS_SELECTOR, ".vm-labels li")
        if len(rows) < number:
            self.find("#vm-labels [data-do=add]").click()
            self.until(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, ".vm-labels li")) == number)
            rows = self.driver.find_elements(By.CSS_SELECTOR, ".vm-labels li")
        field = rows[number - 1].find_element(By.CSS_SELECTOR, "input")
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        self.driver.execute_script(script, field, name)
        time.sleep(0.5)

    def propagate(self) -> None:
        self.find("#vm-go").click()
        self.until(lambda: self.find("#vm-stage").get_attribute("class") and self.busy(), 10)
        self.until(lambda: not self.busy(), 600)

    def busy(self) -> bool:
        return not self.find(".vm-frame").is_enabled()

    def set_number(self, slider: str, number: int, picture: str) -> None:
        before = self.find(picture).get_attribute("src")
        field = self.find(f"{slider} input[type=number]")
        field.clear()
        field.send_keys(str(number) + Keys.TAB)
        self.until(lambda: self.find(picture).get_attribute("src") != before)

    def tab(self, number: int) -> None:
        self.driver.find_elements(By.CSS_SELECTOR, "button[role=tab]")[number].click()
