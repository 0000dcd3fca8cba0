"""A headless Chromium that shows pages of this machine, and tells what they asked for and complained about."""

import base64
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--disable-background-networking", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
HEIGHT = 900


class Browser:
    """One tab. `open` shows a page at a width and in a theme."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, *, width: int = 1400, theme: str = "light") -> None:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get(path.as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script of ours returns; it runs beside the page's policy."""
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def press(self, key: str) -> None:
        """A key, as the keyboard sends it."""
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key)
        event: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        down = {**event, "type": "keyDown", "text": text} if text else {**event, "type": "rawKeyDown"}
        self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", down)
        self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**event, "type": "keyUp"})

    def requests(self) -> list[str]:
        """Addresses that were asked for since the last call, those within the page (data:) left out."""
        events = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        addresses = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in addresses if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """Lines of the console since the last call: errors, warnings, refusals of the page's policy."""
        return [line["message"] for line in self.driver.get_log("browser")]

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        size = self.run("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}
        answer = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        return base64.b64decode(answer["data"])


@contextmanager
def browser(names: Sequence[str] = ("chromium", "chromium-browser", "google-chrome")) -> Iterator[Browser]:
    """A browser, closed at the end. Without Chromium and its driver a skip, a failure where KDCACHE_REQUIRE_REALDATA is
    set."""
    binary = next((path for name in names if (path := shutil.which(name))), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        reason = "no Chromium: apt-get install chromium chromium-driver"
        if os.environ.get("KDCACHE_REQUIRE_REALDATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    options = ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(driver_path))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
