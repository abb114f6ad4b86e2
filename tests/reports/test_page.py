"""The report in a real browser."""

import json
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
    records = [{"step": step, f"loss_{ATTACK}": 1.0 / step} for step in (1, 2, 3)]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (runs[0] / "logs").mkdir()
    (runs[0] / "logs" / "metrics.jsonl").write_text(lines)
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


def test_the_first_query_is_open_and_contents_lead_to_it(report, open_page):
    page = open_page(report, {"width": 1280, "height": 800})
    first = page.locator(".list tbody button").first.inner_text()
    assert page.locator(".query h4").inner_text() == first
    assert page.evaluate("scrollY") == 0
    links = page.get_by_role("navigation", name="Contents").get_by_role("link")
    assert links.count() == 3  # two runs, and their queries
    links.last.click()
    assert page.evaluate("scrollY") > 0
    page.get_by_role("button", name="query2", exact=True).click()
    heading = page.locator(".query h4")
    assert heading.inner_text() == "query2"
    assert 0 <= heading.bounding_box()["y"] < 200  # in view, at the top
    table = page.locator(".wide").first
    assert table.evaluate("node => node.scrollWidth - node.clientWidth") <= 0


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
    page.get_by_role("combobox", name="Protocol").select_option(label="Hard")
    page.get_by_role("searchbox").fill("query3")
    assert column.first.locator("td").nth(1).inner_text() == "–"
    page.get_by_role("searchbox").fill("nothing")
    assert "no query of that name" in status(page)


def test_a_chart_names_its_query_and_shows_it(report, open_page):
    page = open_page(report)
    figure = page.locator("figure", has_text="Medium: average precision by query")
    slider, named = figure.get_by_role("slider"), figure.locator(".pointed")
    slider.focus()
    page.keyboard.press("End")
    last = named.inner_text().split(":")[0]
    marker, area = (figure.locator(name).bounding_box() for name in (".u-cursor-x", ".u-over"))
    # The last of four columns, each as wide as a quarter; the marker is one pixel wide
    assert (marker["x"] - area["x"]) / area["width"] == pytest.approx(7 / 8, abs=0.02)
    place = {"x": 0.6 * area["width"], "y": 40}  # in the third column
    figure.locator(".u-over").hover(position=place)
    third = named.inner_text().split(":")[0]
    assert third != last
    assert slider.input_value() == "2"
    page.mouse.move(0, 0)
    page.wait_for_timeout(200)  # what would change the mark comes later
    assert slider.input_value() == "2"  # the query stays marked
    figure.locator(".u-over").click(position=place)
    assert page.locator(".query h4").inner_text() == third
    slider.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.locator(".query h4").inner_text() == last


def test_a_curve_tells_its_values_where_one_points(report, open_page):
    page = open_page(report)
    figure = page.locator("figure", has_text="Medium: precision over recall")
    chart = json.loads(figure.get_attribute("data-chart"))
    area = figure.locator(".u-over")
    width = area.bounding_box()["width"]
    area.hover(position={"x": width / 2, "y": 20})
    shown = figure.locator(".u-legend .u-value").all_inner_texts()
    assert [float(text) for text in shown] == [50, *(curve[25] for _, curve in chart["curves"])]


def test_dragging_over_a_chart_of_queries_shows_none(report, open_page):
    page = open_page(report)
    area = page.locator("figure", has_text="Medium: average precision by query").locator(".u-over")
    first = page.locator(".query h4").inner_text()
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 20, steps=4)
    page.mouse.up()
    assert page.locator(".query h4").inner_text() == first
    area.click(position={"x": 0.9 * box["width"], "y": 40})
    assert page.locator(".query h4").inner_text() != first


def test_charts_follow_the_colours_and_the_width_of_the_page(report, open_page):
    page = open_page(report, color_scheme="light")
    figures = page.locator("figure").count()
    for selector, read, change in (
        (".plot.bars .u-marker", "style.border", lambda: page.emulate_media(color_scheme="dark")),
        (".plot canvas", "clientWidth", lambda: page.set_viewport_size(PHONE)),
    ):
        node = page.locator(selector).first
        before = node.evaluate(f"node => node.{read}")
        assert before
        change()
        now = f"before => document.querySelector('{selector}').{read} !== before"
        page.wait_for_function(now, arg=before)
    assert page.locator(".plot canvas").first.bounding_box()["width"] <= PHONE["width"]
    assert page.locator("figure canvas").count() == figures


def test_hostile_names_are_shown_and_do_nothing(report, open_page):
    page = open_page(report)
    page.get_by_role("button", name=ATTACK).first.click()
    assert page.locator(".query h4").inner_text() == ATTACK
    page.locator(".hit").first.click()
    assert ATTACK in page.get_by_role("dialog").inner_text()
    assert page.locator("img[src=x], i, u").count() == 0
    assert page.locator("h1").inner_text() == "Two <u>runs</u>"
    assert page.get_by_text(f"loss_{ATTACK}").count() == 1


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


def test_tables_need_no_script(report, open_page):
    page = open_page(report, java_script_enabled=False)
    assert page.get_by_text("The list of queries needs JavaScript").is_visible()
    assert page.locator("table").first.is_visible()
    assert page.get_by_text("This chart needs JavaScript").first.is_visible()


@pytest.mark.slow
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
