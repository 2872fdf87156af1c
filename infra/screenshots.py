"""`make screenshots`: what the page looks like, for the README, in a real browser and with the model that ships."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.browser import open_browser
from infra.local import SAMPLES

HERE = Path(__file__).parent


@contextmanager
def running_page(**environment: str) -> Iterator[str]:
    """The page's address, as `make run` serves it until this ends."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "infra"],
        cwd=HERE.parent,
        env={**os.environ, "ONCE": "", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.match("The page: (.*)", line):
                yield found[1]
                return
        raise RuntimeError("".join(said))
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def main() -> None:
    with running_page() as url, open_browser() as browser:
        wide = browser.new_page(viewport={"width": 1000, "height": 760})
        wide.goto(url)
        wide.set_input_files("#files", [SAMPLES / "camera.jpg"])
        wide.locator("#new .word").nth(1).hover()
        wide.screenshot(path=HERE / "page.jpg", type="jpeg", quality=82)
        phone = browser.new_page(viewport={"width": 390, "height": 760}, color_scheme="dark", device_scale_factor=1.5)
        phone.goto(url)
        phone.locator("#items .text").first.scroll_into_view_if_needed()
        phone.locator("#gallery").evaluate("section => section.scrollIntoView()")
        phone.wait_for_function("[...document.images].slice(0, 2).every(image => image.complete)")
        phone.screenshot(path=HERE / "page-phone.jpg", type="jpeg", quality=82)


if __name__ == "__main__":
    main()
