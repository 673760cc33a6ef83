"""A browser that people use, without a screen; one for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SCREENSHOTS = Path("build/screenshots")
_DESK = 1200, 900
_WAIT = 20.0  # seconds


class Browser:
    """What a test does in a browser, and what it sees there."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def settle(self, *, language: str = "en", width: int = _DESK[0], dark: bool = False) -> None:
        """Become the browser of somebody else: no cookies, this language, width and colour scheme."""
        # a page that refreshes itself would go on asking pages that are gone, and complain of it
        self.open("about:blank")
        self._do("Network.clearBrowserCookies")
        self._do("Network.setUserAgentOverride", userAgent="test", acceptLanguage=language)
        size = {"width": width, "height": _DESK[1], "deviceScaleFactor": 1, "mobile": False}
        self._do("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints()

    def open(self, url: str) -> None:
        self._driver.get(url)

    @property
    def url(self) -> str:
        return self._driver.current_url

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.find("body").text

    def find(self, selector: str) -> WebElement:
        return self._driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self._driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str) -> Any:
        return self._driver.execute_script(f"return {script}")

    def wait(self, condition: Any) -> None:
        """Wait until the condition holds, on whatever page that comes meanwhile; give it no arguments."""
        left = [NoSuchElementException, StaleElementReferenceException]
        WebDriverWait(self._driver, _WAIT, 0.1, ignored_exceptions=left).until(lambda _: condition())

    def complaints(self) -> list[str]:
        """What the console has complained of since it was last asked."""
        entries = self._driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def too_wide(self) -> bool:
        """Whether one would have to scroll the page sideways."""
        return bool(self.run("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def screenshot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        width = self.run("innerWidth")
        height = min(4000, self.run("document.documentElement.scrollHeight"))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._do("Emulation.setDeviceMetricsOverride", **size)
        self._driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
        self._do("Emulation.setDeviceMetricsOverride", **(size | {"height": _DESK[1]}))

    def _do(self, command: str, **arguments: Any) -> None:
        self._driver.execute_cdp_cmd(command, arguments)


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Start Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver"))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
