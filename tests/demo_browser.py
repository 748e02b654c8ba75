"""A headless Chromium that looks at the search page as a visitor does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
INSTALL = "needs Chromium: apt-get install chromium chromium-driver (Debian, Ubuntu)"
SCREENSHOTS = Path("build/screenshots")
SECONDS = 60


class Browser:
    """One page, looked at."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, query: str = "", ready: str = "#describe .chip") -> None:
        self.leave()
        self.driver.get(f"{self.address}{query}")
        self.find(ready)

    def leave(self) -> None:
        """Go away; what a page says of requests that this cuts off is no fault of it."""
        self.driver.get("about:blank")
        self.complaints()

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def find(self, selector: str) -> WebElement:
        return self.until(lambda: next(iter(self.all(selector)), None), f"no {selector}")

    def click(self, selector: str) -> None:
        """Click as soon as it can be clicked; the page may be drawing it anew."""

        def attempt() -> bool:
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
            self.find(selector).click()
            return True

        self.until(attempt, f"cannot click {selector}")

    def tab(self, name: str) -> None:
        self.until(
            lambda: next((one for one in self.all("[role=tab]") if one.text == name), None), f"no tab {name}"
        ).click()

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def see(self, selector: str, text: str) -> None:
        """Wait until an element shows a text."""
        self.until(lambda: any(text in one.text for one in self.all(selector)), f"{selector} never shows {text!r}")

    def until(self, look: Callable[[], Any], complaint: str) -> Any:
        ignored = (StaleElementReferenceException, *_not_yet())
        waiting = WebDriverWait(self.driver, SECONDS, 0.1, ignored_exceptions=ignored)
        return waiting.until(lambda _: look(), complaint)

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def complaints(self) -> list[str]:
        """What the browser's console says at the level of an error."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def screenshot(self, name: str) -> None:
        time.sleep(0.4)  # what fades in
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A headless browser of 1920 x 1080 that asks nobody for anything but the page."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "hide-scrollbars",
        "window-size=1920,1080",
    )
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def _not_yet() -> tuple[type[Exception], ...]:
    from selenium.common.exceptions import ElementClickInterceptedException, ElementNotInteractableException

    return ElementClickInterceptedException, ElementNotInteractableException
