"""The search page on screens of two widths, light and dark, over images that are found at once."""

import importlib.util
import os
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")
pytest.importorskip("playwright", reason="drives the browser; the extra `test` installs it")

from playwright import sync_api as playwright

from delg_jax.retrieval.searcher import Found, Hit, Query, Verdict
from delg_jax.serving.requests import Limits
from tests import search_page

IMAGES = 60
SCREENS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
_WAIT = 300_000  # milliseconds
LIMITS = Limits(upload_bytes=2 * 2**20, request_seconds=_WAIT / 1000)
_SHOTS = os.environ.get("DELG_SCREENSHOTS", "")  # a folder, to look at them


class Source:
    """Images of three folders, with long names."""

    names = [
        f"archive of the year {2000 + n % 3}/a_long_folder_name/photograph_of_a_place_{n:04}.jpg"
        for n in range(IMAGES)
    ]
    labels = np.full(IMAGES, -1)

    def __len__(self):
        return IMAGES

    def read(self, index):
        height, width = ((300, 400), (400, 300), (200, 500))[index % 3]
        return search_page.jpeg(index, height, width)


class Searcher(search_page.QuickSearcher):
    """Finds all images in their order, the first three of which match."""

    def __init__(self):
        super().__init__()
        self.source, self.methods = Source(), ("global", "global+sp", "local", "local+mds")
        self.best_method, self.likely = "local+mds", 3

    def query_prepared(self, loaded, size, box):
        self.gate.wait(_WAIT / 1000)
        return Query(None, size, (0, 0), 1.5)

    def search(self, query, method, top, wanted=lambda: True):
        hits = [Hit(n, Source.names[n], 0.98765 / (n + 1)) for n in range(min(top, IMAGES))]
        return Found(hits, {"features": 1.5, "search": 1.0, "rerank": 0.0})

    def judge(self, query, hits, wanted=lambda: True):
        levels = ["strong", "strong", "weak"][: self.likely]
        levels += ["chance"] * (len(hits) - len(levels))
        least = {"strong": 40, "weak": 20}
        return Verdict([9] * len(hits), levels[: len(hits)], self.likely, least, 2.0)


@pytest.fixture(scope="module")
def served():
    searcher = Searcher()
    with search_page.running(searcher, LIMITS) as inside:
        inside.searcher = searcher
        yield inside
        searcher.gate.set()


@pytest.fixture
def searcher(served):
    served.searcher.gate.set()
    served.searcher.likely = 3
    return served.searcher


def _slow_unless_quick(screen):
    """Each width and each scheme is in one quick test: a page costs the browser half a second."""
    marks = () if screen in ((1280, "light"), (390, "dark")) else pytest.mark.slow
    return pytest.param(screen, marks=marks, id=f"{screen[0]}-{screen[1]}")


@pytest.fixture(params=[_slow_unless_quick(screen) for screen in SCREENS])
def screen(request):
    return request.param


@pytest.fixture
def page(browser, served, searcher, screen):
    """An open page; at the end of the test its console must be empty."""
    width, scheme = screen
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        bypass_csp=True,  # for axe
        has_touch=width < 700,
    )
    page = context.new_page()
    page.set_default_timeout(_WAIT)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{served.port}/")
    seen(page, "#examples button")
    yield page
    context.close()
    assert complaints == []


def seen(page, selector, text=""):
    playwright.expect(page.locator(selector).first).to_contain_text(text, timeout=_WAIT)


def example(page):
    """Searches with the first example."""
    page.locator("#examples button").first.click()
    seen(page, "#status", "results")


def check(page, name):
    """No sideways scroll, and no violation that axe finds."""
    if _SHOTS:
        width = page.viewport_size["width"]
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        page.screenshot(path=Path(_SHOTS) / f"{name}_{width}_{'dark' if dark else 'light'}.png")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) <= 0
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        return
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then((found) => found.violations)")
    assert [(one["id"], one["nodes"][0]["html"]) for one in violations] == []


def test_axe_is_there():
    pytest.importorskip("axe_playwright_python", reason="accessibility is not checked")


def test_the_first_view_invites(page, screen):
    assert page.locator("#examples button").count() == 6
    assert page.locator("#drop").bounding_box()["height"] > 150
    labels = page.locator("#method > option").all_inner_texts()
    assert labels == ["Best match", "Pictures that look alike (fast)", "The same details"]
    assert page.locator("#method optgroup").get_attribute("label") == "Advanced"
    assert not page.is_visible("#query")
    for size in page.locator("#examples img").all():
        assert size.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (screen[1] == "light")
    check(page, "first")


def test_an_example_is_searched_and_results_are_equal_cards(page, screen):
    example(page)
    cards = page.locator("#results .card")
    assert cards.count() == 24
    sizes = [(box["width"], box["height"]) for box in (c.bounding_box() for c in cards.all())]
    assert max(w for w, _ in sizes) - min(w for w, _ in sizes) < 1.5
    rows = {round(box["y"]) for box in (c.bounding_box() for c in cards.all())}
    assert len(rows) >= 24 / 6
    name = cards.nth(1).locator(".name")
    assert name.text_content() == Source.names[1]
    head, tail = name.locator(".head"), name.locator(".tail").bounding_box()
    assert head.evaluate("node => node.scrollWidth > node.clientWidth")  # its middle is left out
    card = cards.nth(1).bounding_box()
    assert tail["x"] + tail["width"] <= card["x"] + card["width"]
    assert name.get_attribute("title") == Source.names[1]
    assert page.locator(".level").first.inner_text() == "strong match"
    texts = page.locator("#results ol > li").all_inner_texts()
    assert "unlikely" in texts[3]
    assert not page.is_visible("#spans")
    if screen[0] == 390:
        assert page.locator("#results").bounding_box()["y"] < 500  # in view
    check(page, "results")


def test_nothing_likely_is_said(page, searcher):
    searcher.likely = 0
    example(page)
    seen(page, "#verdict", "Probably not there")
    assert page.locator(".divider").count() == 0


def test_results_are_grouped_and_paged(page):
    example(page)
    page.check("#grouped")
    assert page.locator("#results h2").count() == 3
    assert "2000/a_long_folder_name (8)" in page.locator("#results h2").first.inner_text()
    check(page, "grouped")
    page.uncheck("#grouped")
    page.click("#more")
    playwright.expect(page.locator("#results .card")).to_have_count(48, timeout=_WAIT)
    page.click("#more")
    playwright.expect(page.locator("#results .card")).to_have_count(IMAGES, timeout=_WAIT)
    assert not page.is_visible("#more")


def test_pairs_are_seen_at_once_and_leafed_through(page, screen):
    page.route("**/api/matches", lambda route: None)  # never answers
    example(page)
    page.click("#results .show >> nth=0")
    playwright.expect(page.locator("#drawing image")).to_have_count(2, timeout=_WAIT)
    assert "Matching" in page.inner_text("#summary")
    page.unroute("**/api/matches")
    assert page.is_disabled("#previous")
    page.click("#next")
    seen(page, "#title", "Result 2 of 24")
    seen(page, "#summary", "1 fit one geometry: a strong match")
    assert page.locator("#drawing line").count() == 1
    page.uncheck("#lines")
    assert not page.locator("#drawing line").first.is_visible()
    page.check("#lines")
    page.keyboard.press("Escape") if screen[0] == 390 else None
    if screen[0] == 1280:
        page.focus("#next")
        page.keyboard.press("ArrowRight")
        seen(page, "#title", "Result 3 of 24")
        assert page.inner_text("#path") == Source.names[2]
        check(page, "pair")
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "photograph_of_a_place_0002.jpg"
        assert Path(download.value.path()).read_bytes() == Source().read(2)
        page.click("#like")
        playwright.expect(page).to_have_url(re.compile("like=2"), timeout=_WAIT)
    else:
        page.click("#results .show >> nth=5")
        seen(page, "#summary", "fit one geometry")
        check(page, "pair")


def test_the_address_restores_what_was_seen(page):
    example(page)
    page.select_option("#method", label="The same details")
    seen(page, "#status", "results")
    page.check("#grouped")
    page.click("#results .show >> nth=1")
    seen(page, "#summary", "fit one geometry")
    title = page.inner_text("#title")
    assert re.search(r"method=local&grouped=1&like=\d+&pair=\d+", page.url)
    with page.expect_response("**/api/search?*") as response:
        page.reload()
    assert "method=local&" in response.value.url
    seen(page, "#title", title)
    assert page.is_checked("#grouped")


def test_a_search_shows_its_time_and_is_cancelled(page, searcher, screen):
    example(page)
    searcher.gate.clear()
    page.click("#corners summary")
    width = 100 + SCREENS.index(screen)  # a box that the server does not know yet
    for side, value in zip(("x1", "y1", "x2", "y2"), (1, 2, width, 90), strict=True):
        page.fill(f"#{side}", str(value))
    page.click("#search")
    seen(page, "#elapsed", re.compile("Searching, [1-9]"))
    assert page.locator("#results.old .card").count() == 24
    check(page, "searching")
    page.click("#cancel")
    seen(page, "#status", "cancelled")
    assert not page.is_visible("#progress")
    assert page.locator("#results.old").count() == 0
    searcher.gate.set()
    page.click("#whole")
    seen(page, "#status", "results")


def test_a_large_file_is_refused_in_megabytes(page):
    file = {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": bytes(3 * 2**20)}
    page.set_input_files("#file", file)
    seen(page, "#error", "3.0 MB; at most 2.0 MB")
    assert page.locator("#error").bounding_box()["y"] < 800
    check(page, "refused")


def test_a_phone_has_a_camera(page, screen):
    assert page.is_visible("#camera-label") == (screen[0] == 390)
    assert page.get_attribute("#camera", "capture") == "environment"
