"""Debian's chromium, without a window: for the tests of the page, and for its pictures."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

# As root there is no sandbox; the rest keeps it from talking to anybody but the page.
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--hide-scrollbars",
)


def find_chromium() -> tuple[str, str] | None:
    """chromium and its driver, where both are installed (apt-get install chromium chromium-driver)."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


@contextmanager
def browse(width: int, height: int, dark: bool = False, scale: float = 1) -> Iterator[Any]:
    """A browser of this size in CSS pixels, with nothing left of earlier ones. Raises LookupError where there is none."""
    found = find_chromium()
    if found is None:
        raise LookupError("chromium and chromedriver are not installed: make test-deps")
    with tempfile.TemporaryDirectory() as profile:
        options = ChromeOptions()
        options.binary_location = found[0]
        for switch in (*SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = Chrome(options, Service(found[1]))
        try:
            screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield driver
        finally:
            driver.quit()
