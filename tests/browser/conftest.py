"""The page in a real browser, served by `make run`'s own program: gateway, handler, S3, queue and table on loopback."""

import contextlib

import pytest
from PIL import Image

from infra.browser import open_browser
from infra.screenshots import running_page
from tests.tiny_bundle import make_tiny_bundle

OLDER = 15  # photos in the bucket before anybody comes: more than a page of the gallery


@pytest.fixture(scope="session")
def browser():
    with contextlib.ExitStack() as held:
        try:
            yield held.enter_context(open_browser())
        except LookupError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def variables(tmp_path_factory):
    """What the server is told: a small model, and photos of one colour each."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(OLDER):
        Image.new("RGB", (80, 60), (16 * number, 90, 255 - 16 * number)).save(folder / f"older-{number}.png")
    return {"BUNDLE": str(make_tiny_bundle(tmp_path_factory.mktemp("bundle"))), "PHOTOS": str(folder)}


@pytest.fixture(scope="module")
def url(browser, variables):
    with running_page(**variables) as address:
        yield address


@pytest.fixture
def violations():
    """What the page did that its Content-Security-Policy forbids."""
    return []


@pytest.fixture
def page(browser, url, violations):
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("console", lambda said: violations.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    page.locator("#items .card").first.wait_for()
    yield page
    context.close()
    assert violations == []


@pytest.fixture
def photos(tmp_path):
    """Three files that are photos."""
    paths = [tmp_path / f"new-{name}.jpg" for name in "abc"]
    for number, path in enumerate(paths):
        Image.effect_mandelbrot((200, 150), (-2, -1, 1, 1 + number), 20).convert("RGB").save(path)
    return paths
