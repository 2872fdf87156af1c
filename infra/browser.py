"""Debian's chromium, without a window: for the tests of the page, and for its pictures."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

# As root there is no sandbox; the rest keeps it from talking to anybody but the page.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """The browser. Raises LookupError where it is not installed."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise LookupError("chromium is not installed: make test-deps")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        try:
            yield browser
        finally:
            browser.close()
