"""The report in a real browser."""

import shutil

import numpy as np
import pytest

from delg_jax.reports.html import write_report
from tests.reports import workdirs

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")

ATTACK = "<img src=x onerror=alert(1)><∕script><script>alert(2)<∕script>\"'"
DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    names = [ATTACK, "query1", "query2", "query3"]
    runs = [
        workdirs.make(root / name, root / "data", names, seed=1 - i)
        for i, name in enumerate(("one", "two <i>"))
    ]
    return write_report(runs, root / "report.html", title="Two <u>runs</u>")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Opens a file; afterwards nothing was said, shown, or asked of a network."""
    complaints, contexts = [], []

    def opened(path, size=DESKTOP, **options):
        context = browser.new_context(viewport=size, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url)
                if not request.url.startswith(("data:", path.as_uri()))
                else None
            ),
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def status(page):
    return page.locator(".explorer").get_by_role("status").inner_text()


def test_a_query_is_chosen_by_mouse_and_its_matches_appear(report, open_page):
    page = open_page(report)
    page.get_by_role("button", name="query1", exact=True).click()
    assert page.locator(".query h4").inner_text() == "query1"
    assert page.locator(".query h5").count() == 6
    assert page.locator(".asked .box").count() == 2
    hits = page.locator(".hits").nth(1).locator(".hit")
    assert hits.first.get_attribute("aria-label") == (
        "rank 1, right, up 6 from rank 7: place1_near"
    )
    assert hits.first.inner_text().split() == ["✓", "1", "↑6"]
    hits.first.click()
    dialog = page.get_by_role("dialog")
    assert "30 inliers of 30 matches (verified)" in dialog.inner_text()
    assert dialog.locator("line.inlier").count() == 30
    assert dialog.locator("image").count() == 2
    spot = dialog.locator(".spot").first
    assert not spot.is_visible()
    dialog.get_by_role("checkbox", name="Attention").check()
    assert spot.is_visible()
    dialog.get_by_role("checkbox", name="Inlier lines").uncheck()
    assert not dialog.locator("line.inlier").first.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_a_query_is_chosen_by_keyboard(report, open_page):
    page = open_page(report)
    page.get_by_role("searchbox").focus()
    page.keyboard.type("QUERY2")
    for _ in range(4):  # protocol, order, the list, its first query
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".query h4").inner_text() == "query2"
    page.keyboard.press("Tab")  # the first result
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert "hit" in page.evaluate("document.activeElement.className")


def test_the_list_is_searched_sorted_and_follows_the_protocol(report, open_page):
    page = open_page(report)
    names = page.locator(".list tbody button")
    page.get_by_label("Sort by").select_option(label="name")
    assert names.all_inner_texts() == [ATTACK, "query1", "query2", "query3"]
    page.get_by_label("Sort by").select_option(label="2: local, gain over run 1")
    column = page.locator(".list tbody tr")
    cells = [
        [float(text) for text in row.locator("td").all_inner_texts()[1:]] for row in column.all()
    ]
    gains = [row[5] - row[2] for row in cells]
    assert gains == sorted(gains, reverse=True)
    assert len(set(gains)) > 1
    page.get_by_label("Protocol").select_option(label="Hard")
    page.get_by_role("searchbox").fill("query3")
    assert column.first.locator("td").nth(1).inner_text() == "–"
    page.get_by_role("searchbox").fill("nothing")
    assert "no query of that name" in status(page)


def test_a_plot_names_its_query_and_shows_it(report, open_page):
    page = open_page(report)
    figure = page.locator("figure", has_text="Medium: average precision by query")
    slider = figure.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    last = figure.locator(".pointed").inner_text().split(":")[0]
    assert figure.locator(".marker").get_attribute("x1") == "420"
    figure.locator("svg").first.hover(position={"x": 40, "y": 40})
    assert figure.locator(".pointed").inner_text().split(":")[0] != last
    slider.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator(".query h4").inner_text() == last


def test_hostile_names_are_shown_and_do_nothing(report, open_page):
    page = open_page(report)
    page.get_by_role("button", name=ATTACK).first.click()
    assert page.locator(".query h4").inner_text() == ATTACK
    page.locator(".hit").first.click()
    assert ATTACK in page.get_by_role("dialog").inner_text()
    assert page.locator("img[src=x], i, u").count() == 0
    assert page.locator("h1").inner_text() == "Two <u>runs</u>"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_only_down(report, open_page, scheme):
    page = open_page(report, PHONE, color_scheme=scheme)
    page.get_by_role("button", name=ATTACK).first.click()
    width = "document.scrollingElement.scrollWidth"
    assert page.evaluate(width) == PHONE["width"]
    page.locator(".hit").first.click()
    assert page.evaluate(width) == PHONE["width"]
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert contrast(ink, ground) > 7
    note = page.locator(".note").first.evaluate("node => getComputedStyle(node).color")
    assert contrast(note, ground) > 4.5


def contrast(one, other):
    """Of WCAG 2.1, of colours `rgb(r, g, b)`."""
    light = []
    for colour in (one, other):
        parts = np.array([int(part) for part in colour[4:-1].split(",")]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_tables_and_plots_need_no_script(report, open_page):
    page = open_page(report, java_script_enabled=False)
    assert page.get_by_text("The list of queries needs JavaScript").is_visible()
    assert page.locator("table").first.is_visible()
    assert page.locator("figure svg").first.is_visible()


def test_a_thousand_queries_stay_small_and_open(tmp_path, open_page):
    folder = workdirs.make(tmp_path / "run", tmp_path / "data", copies=250)
    path = write_report([folder], tmp_path / "report.html")
    assert path.stat().st_size < 4e6
    page = open_page(path)
    assert page.locator(".list tbody tr").count() == 20
    assert "1 to 20 of 1000" in status(page)
    page.get_by_role("button", name="Later").click()
    assert "21 to 40 of 1000" in status(page)
    page.get_by_role("searchbox").fill("copy249_query3")
    page.locator(".list tbody button").first.click()
    assert "No picture of this query" in page.locator(".query").inner_text()
    assert page.locator(".hit").count() == 24
