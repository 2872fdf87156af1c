"""What people do with the page."""

import base64
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from function.objects import LARGEST
from function.pages import HERE
from infra.screenshots import running_page

NEW, OLD = "#new .card", "#items .card:has(.said:not([hidden]))"


def choose(page, *files):
    page.set_input_files("#files", list(files))


def captioned(page, count=1):
    """The new cards, once all have a caption."""
    expect(page.locator(f"{NEW} .said:visible")).to_have_count(count)
    return page.locator(NEW)


def older(page):
    """One of the cards that were there before, whatever becomes of it."""
    link = page.locator(f"{OLD} img").first.get_attribute("src").split("?")[0]
    return page.locator("#items .card", has=page.locator(f'img[src^="{link}?"]'))


def hand_over(page, kind, target, path, media_type="image/jpeg"):
    """Pastes or drops a file, as a browser would tell the page of it."""
    page.evaluate(
        """([kind, target, data, type]) => {
            const held = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            held.items.add(new File([bytes], "", { type }));
            const fields = { bubbles: true, cancelable: true, clipboardData: held, dataTransfer: held };
            const made = kind === "paste" ? new ClipboardEvent(kind, fields) : new DragEvent(kind, fields);
            document.querySelector(target).dispatchEvent(made);
        }""",
        [kind, target, base64.b64encode(path.read_bytes()).decode(), media_type],
    )


def test_a_chosen_photo_gets_a_caption_which_is_its_alternative_text(page, photos):
    choose(page, photos[0])
    card = captioned(page)
    caption = card.locator(".text").inner_text()
    assert caption
    assert card.get_by_role("img").get_attribute("alt") == caption
    expect(page.locator("#live")).to_contain_text(caption)


def test_several_at_once(page, photos):
    choose(page, *photos)
    captioned(page, 3)
    assert sorted(page.locator("#new .name").all_inner_texts()) == [path.name for path in photos]


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_photos_come_by_paste_and_drop_too(page, photos, kind):
    hand_over(page, kind, "#drop", photos[0])
    captioned(page)


def test_it_shows_where_the_model_looked_for_a_word(page, photos):
    choose(page, photos[0])
    card = captioned(page)
    veil = card.locator(".veil")
    expect(veil).to_be_hidden()
    word = card.locator(".word").nth(1)
    word.hover()
    expect(veil).to_be_visible()
    expect(card.locator(".looked")).to_contain_text(f"“{word.inner_text()}”: looked at the")
    clear, dark = veil.evaluate(
        """canvas => {
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            const opacity = pixels.filter((_, at) => at % 4 === 3);
            return [Math.min(...opacity), Math.max(...opacity)];
        }"""
    )
    assert clear < dark
    page.mouse.move(0, 0)
    expect(veil).to_be_hidden()


def test_the_gallery_shows_where_the_model_looked_when_it_is_asked(page):
    card = page.locator(OLD).first
    assert card.locator(".word").count() == 0
    card.locator(".text").hover()
    card.locator(".word").first.wait_for()


def test_a_file_that_is_no_photo_is_said_to_be_none(page, tmp_path, photos):
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "broken.jpg").write_bytes(photos[0].read_bytes()[:900])
    choose(page, tmp_path / "notes.txt", tmp_path / "broken.jpg", photos[0])
    captioned(page, 1)
    expect(page.locator(NEW).nth(2).locator(".problem")).to_contain_text("This is no photo: JPEG, PNG")
    expect(page.locator(NEW).nth(1).locator(".problem")).to_contain_text("the JPEG is damaged")


def test_a_file_that_is_too_large_is_not_sent(page, tmp_path):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(LARGEST + 1)
    choose(page, tmp_path / "large.jpg")
    expect(page.locator(f"{NEW} .problem")).to_contain_text("at most 50 MB")
    assert not [address for address in requests if "uploads" in address]


def test_a_corrected_caption_stays(page):
    card = older(page)
    card.get_by_role("button", name="Correct").click()
    card.get_by_role("textbox").fill("one colour and <nothing> else")
    card.get_by_role("button", name="Save").click()
    expect(card.locator(".text")).to_have_text("one colour and <nothing> else")
    page.reload()
    expect(card.locator(".text")).to_have_text("one colour and <nothing> else")
    expect(card.locator(".by")).to_be_visible()
    expect(card.locator(".sure")).to_be_hidden()


def test_a_caption_is_deleted_only_after_asking(page):
    card = older(page)
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Keep it").click()
    expect(card).to_have_count(1)
    card.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete the caption").click()
    expect(card).to_have_count(0)
    page.reload()
    page.locator(OLD).first.wait_for()
    expect(card).to_have_count(0)


def test_the_gallery_pages_to_its_end(page):
    assert page.locator("#items .card").count() == 12
    more = page.get_by_role("button", name="Show older photos")
    while more.is_visible():
        more.click()
        expect(page.locator("#gallery")).to_have_attribute("aria-busy", "false")
    keys = [link.split("?")[0] for link in page.locator("#items img").evaluate_all("all => all.map(each => each.src)")]
    assert len(keys) == len(set(keys)) > 12
    image = page.locator(f"{OLD} img").first
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_captions_are_copied_as_text_and_as_html(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    card = page.locator(OLD).nth(1)
    caption = card.locator(".text").inner_text()
    card.get_by_role("button", name="Copy", exact=True).click()
    expect(card.get_by_text("Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == caption
    card.get_by_role("button", name="Copy as alt").click()
    held = "text => navigator.clipboard.readText().then((held) => held === text)"
    page.wait_for_function(held, arg=f'alt="{caption}"')


def test_all_of_it_can_be_done_by_keyboard(page, photos):
    choose(page, photos[0])
    card = captioned(page)
    card.locator(".word").first.wait_for()
    page.locator("#files").focus()
    seen = []
    for _ in range(8):  # each stop, and its name, until the new photo's buttons are passed
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
    words = card.locator(".word").all_inner_texts()
    assert seen.count(words[0]) == 1  # the words are one stop
    assert {"Other captions", "Copy", "Correct", "Delete"} <= set(seen)

    card.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    expect(card.locator(".looked")).to_contain_text(f"“{words[1]}”")
    card.get_by_role("button", name="Correct").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(card.locator(".text")).to_have_text("by keyboard")
    expect(card.get_by_role("button", name="Correct")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(card.locator(".editor")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1000])
def test_axe_finds_nothing_at_any_width_in_light_and_dark(page, photos, tmp_path, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    (tmp_path / "notes.txt").write_text("no photo")
    choose(page, photos[0], tmp_path / "notes.txt")
    captioned(page).locator(".word").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 244, 238)"
    assert light == (scheme == "light")
    found = [Axe().run(page).generate_report()]
    page.locator(f"{NEW} .word").first.focus()
    found.append(Axe().run(page).generate_report())
    page.locator(OLD).first.get_by_role("button", name="Correct").click()
    found.append(Axe().run(page).generate_report())
    page.locator(OLD).nth(1).get_by_role("button", name="Delete").click()
    found.append(Axe().run(page).generate_report())
    assert [report for report in found if "Found 0 accessibility violations" not in report] == []


def test_an_empty_gallery_says_so_and_axe_finds_nothing(page):
    page.route(re.compile(r"/captions\?limit"), lambda route: route.fulfill(json={"items": []}))
    page.reload()
    expect(page.locator("#gallery-state")).to_contain_text("Nothing yet")
    assert "Found 0 accessibility violations" in Axe().run(page).generate_report()


def test_a_page_without_photos_does_not_end_the_gallery(page):
    pages = iter([{"items": [], "cursor": "further"}])

    def answer(route):
        found = next(pages, None)
        route.fulfill(json=found) if found else route.fallback(url=route.request.url.replace("&cursor=further", ""))

    page.route(re.compile(r"/captions\?limit"), answer)
    page.reload()
    expect(page.locator(OLD).first).to_be_visible()


def test_it_is_small_and_asks_nobody_but_the_api_and_the_bucket(page, url, photos):
    assert sum(path.stat().st_size for path in (HERE / "page").iterdir()) < 100_000
    hosts = set()
    page.on("request", lambda request: hosts.add(re.match(r"blob:|\w+://[^/]+", request.url)[0]))
    page.reload()
    choose(page, photos[0])
    captioned(page).locator(".word").first.wait_for()
    others = hosts - {"blob:", url.rstrip("/")}
    assert all(re.fullmatch(r"http://127\.0\.0\.1:\d+", host) for host in others)
    assert len(others) <= 1  # the bucket


def test_offline_is_said_and_ends(page, photos):
    page.context.set_offline(True)
    expect(page.locator("#banner")).to_contain_text("You are offline")
    choose(page, photos[0])
    expect(page.locator(f"{NEW} .problem")).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_hidden()
    page.get_by_role("button", name="Try again").click()
    captioned(page)


def test_a_server_that_is_gone_is_said(browser, variables, photos):
    page = browser.new_page()
    with running_page(**variables) as url:
        page.goto(url)
        page.locator(OLD).first.wait_for()
    choose(page, photos[0])
    expect(page.locator("#banner")).to_contain_text("The server cannot be reached")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    page.close()


def test_a_demo_captions_without_keeping_anything(page, photos):
    demo = {"auth": "NONE", "photos": False, "sign_in": None, "largest_body": 4_000_000}
    media = {"largest_upload": 0, "media_types": ["image/jpeg"]}
    page.route("**/page/config.json", lambda route: route.fulfill(json=demo | media))
    asked = []
    page.on("request", lambda request: asked.append((request.method, request.url)))
    page.reload()
    choose(page, photos[0])
    card = captioned(page)
    card.locator(".word").first.wait_for()
    expect(page.locator("#gallery")).to_be_hidden()
    expect(card.get_by_role("button", name="Correct")).to_be_hidden()
    assert not [address for _, address in asked if "uploads" in address or "limit=" in address]


@pytest.fixture
def guarded(browser, url):
    """The page of a stack where people sign in at https://people.example; and what it sent to the API and there."""
    context = browser.new_context(bypass_csp=True)  # the local stack's policy names no such place
    page, sent = context.new_page(), []

    def sign_in(route):
        query = re.search(r"redirect_uri=([^&]+).*&state=([\w-]+)", route.request.url)
        sent.append(("authorize", route.request.url))
        here = re.sub("%3A", ":", query[1]).replace("%2F", "/")
        route.fulfill(status=302, headers={"Location": f"{here}?code=the-code&state={page.state or query[2]}"})

    def token(route):
        sent.append(("token", route.request.post_data))
        said = {"access_token": "a-token", "refresh_token": "another", "expires_in": 3600}
        route.fulfill(json=said, headers={"Access-Control-Allow-Origin": "*"})

    def listing(route):
        sent.append(("list", route.request.headers.get("authorization")))
        route.fallback()

    page.state = None
    guard = {"auth": "COGNITO", "sign_in": {"url": "https://people.example", "client_id": "page"}}
    page.route("**/page/config.json", lambda route: route.fulfill(json={**route.fetch().json(), **guard}))
    page.route("https://people.example/oauth2/authorize?*", sign_in)
    page.route("https://people.example/oauth2/token", token)
    page.route(re.compile(r"/captions\?limit"), listing)
    page.goto(url)
    yield page, sent
    context.close()


def test_people_sign_in_with_a_code_and_pkce(guarded):
    page, sent = guarded
    expect(page.locator("#caption")).to_be_hidden()
    page.get_by_role("button", name="Sign in").click()
    page.locator(OLD).first.wait_for()
    (_, asked), (_, traded), (_, shown) = sent
    assert "code_challenge_method=S256" in asked
    assert re.search("code_verifier=[\\w-]{43}", traded)
    assert "code=the-code" in traded
    assert shown == "Bearer a-token"
    assert "code" not in page.url
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_a_code_that_was_not_asked_for_is_not_traded(guarded):
    page, sent = guarded
    page.state = "somebody-elses"
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#banner")).to_contain_text("Signing in did not work")
    assert [what for what, _ in sent] == ["authorize"]
