"""The search page in a real browser."""

import json

import pytest

pytest.importorskip("aiohttp", reason="the server needs the extra `serve`")
pytest.importorskip("playwright", reason="drives the browser; the extra `test` installs it")

from playwright import sync_api as playwright

from delg_jax.retrieval.searcher import Searcher
from delg_jax.serving.requests import Limits
from delg_jax.training import trained_network
from tests import photographs, search_page, tiny

_WAIT = 300_000  # milliseconds; what is compiled may take long


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The port of a server over eight pictures, and their folder."""
    root = tmp_path_factory.mktemp("page")
    config = tiny.revisited_config(photographs.make_revisited(root / "data"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        searcher = Searcher(config, root / "run")
    with search_page.running(searcher, Limits(request_seconds=300.0)) as server:
        yield server.port, root / "data" / "jpg"


@pytest.fixture
def page(browser, place):
    """An open page; at the end of the test its console must be empty."""
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.set_default_timeout(_WAIT)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://127.0.0.1:{place[0]}/")
    see(page, "#method", "Best match")
    page.complaints = complaints
    yield page
    context.close()
    assert complaints == []


def see(page, selector, text):
    """Waits for a text in the first of some elements."""
    # A polled expression would be evaluated, which the page's policy forbids
    playwright.expect(page.locator(selector).first).to_contain_text(text, timeout=_WAIT)


def upload(page, picture):
    with page.expect_response("**/api/search?*") as response:
        page.set_input_files("#file", picture)
    assert response.value.status == 200
    page.wait_for_selector("#results li")


def scores(page):
    """Of the results, when they are those of the last search."""
    see(page, "#status", "results")
    return page.locator(".score").all_inner_texts()


def test_a_picture_that_is_chosen_is_searched(page, place):
    upload(page, place[1] / "query1.jpg")
    items = page.locator("#results .card")
    assert items.count() == 8
    assert items.first.locator(".name").text_content() == "place1_near"
    assert items.first.locator(".rank").inner_text() == "1"
    assert items.first.locator(".level").inner_text() in ("strong match", "weak match")
    assert not page.is_visible("#spans")
    assert "features" in page.text_content("#spans")
    width = "image => image.decode().then(() => image.naturalWidth)"
    assert page.locator("#results img").first.evaluate(width) == 112
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_box_that_is_drawn_is_looked_for(page, place):
    upload(page, place[1] / "query0.jpg")
    whole = scores(page)
    page.locator("#picture").scroll_into_view_if_needed()
    frame = page.locator("#picture").bounding_box()
    with page.expect_response("**/api/search?*") as response:
        page.mouse.move(frame["x"] + 20, frame["y"] + 10)
        page.mouse.down()
        page.mouse.move(frame["x"] + 90, frame["y"] + 70, steps=4)
        page.mouse.up()
    assert "box=20%2C10%2C90%2C70" in response.value.url
    assert scores(page) != whole
    assert [page.input_value(f"#{side}") for side in ("x1", "y1", "x2", "y2")] == [
        *("20", "10", "90", "70")
    ]
    assert page.is_visible("#frame")
    with page.expect_response("**/api/search?*") as response:
        page.click("#whole")
    assert "box" not in response.value.url
    assert scores(page) == whole
    assert "features 0.0 ms" in page.text_content("#spans")  # still known


def test_a_click_on_a_result_shows_its_matches(page, place):
    upload(page, place[1] / "query2.jpg")
    page.click("#results .show >> nth=0")
    page.wait_for_selector("#drawing line", state="attached")
    inliers = page.locator("#drawing line").count()
    assert inliers > 4
    assert page.locator("#drawing image").count() == 2
    assert f"{inliers} fit one geometry: a " in page.inner_text("#summary")
    for image in page.locator("#drawing image").element_handles():
        box = image.bounding_box()
        assert box["width"] > 100
        assert box["height"] > 80
    page.click("#close")
    assert not page.is_visible("#dialog")


def test_the_keyboard_is_enough(page, place):
    upload(page, place[1] / "query3.jpg")
    page.focus("#corners summary")
    page.keyboard.press("Enter")
    page.focus("#x1")
    for number in ("10", "10", "80", "60"):
        page.keyboard.type(number)
        page.keyboard.press("Tab")
    with page.expect_response("**/api/search?*") as response:
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
    assert "box=10%2C10%2C80%2C60" in response.value.url
    page.focus("#method")
    with page.expect_response("**/api/search?*") as response:
        page.keyboard.press("ArrowDown")
    assert "method=global&" in response.value.url
    see(page, ".score", "score")
    page.focus("#results .show >> nth=0")
    with page.expect_response("**/api/matches"):
        page.keyboard.press("Enter")
    assert page.is_visible("#dialog")
    page.keyboard.press("Escape")
    assert not page.is_visible("#dialog")


def test_a_picture_that_is_dropped_or_pasted_is_searched(page, place):
    data = list((place[1] / "query1.jpg").read_bytes())
    make = """(bytes) => { const held = new DataTransfer();
        held.items.add(new File([new Uint8Array(bytes)], "a.jpg", {type: "image/jpeg"}));
        return held; }"""
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        held = page.evaluate_handle(make, data)
        kind = "DragEvent" if event == "drop" else "ClipboardEvent"
        with page.expect_response("**/api/search?*") as response:
            page.evaluate(
                f"""(held) => document.dispatchEvent(new {kind}("{event}",
                {{{field}: held, bubbles: true, cancelable: true}}))""",
                held,
            )
        assert response.value.status == 200


def test_mistakes_are_said(page, place, tmp_path):
    upload(page, place[1] / "query1.jpg")
    page.click("#corners summary")
    page.fill("#x1", "50")
    page.click("#search")
    assert "four numbers" in page.inner_text("#error")
    (tmp_path / "text.jpg").write_text("no picture")
    page.set_input_files("#file", tmp_path / "text.jpg")
    see(page, "#error", "not an image")
    assert page.is_visible("#unseen")
    assert page.locator("#results li").count() == 0
    page.complaints.clear()  # the browser notes the status 422


def test_names_are_text(page, place):
    markup = search_page.MARKUP
    hits = [{"image": 0, "name": markup, "score": 0.5}]
    answer = {"query": "x", "hits": hits, "milliseconds": {}, "size": [1, 1]}
    page.route("**/api/search?*", lambda route: route.fulfill(body=json.dumps(answer)))
    page.set_input_files("#file", place[1] / "query1.jpg")
    page.wait_for_selector("#results li")
    assert page.get_attribute(".name", "title") == markup
    assert page.text_content(".name") == markup
    assert page.locator("#results img").count() == 1
