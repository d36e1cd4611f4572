"""The report's page in a real browser, opened from the disk."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from afteredit.analysis import report
from afteredit.analysis.read.run import Run
from afteredit.analysis.read.run_folders import read

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    not CHROMIUM and os.environ.get("AFTEREDIT_BROWSER") != "required", reason="no Chromium: apt-get install chromium"
)
EVIL = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"
URL, HOSTILE_URL = "https://wandb.example/lab/edits/runs/x2", "javascript:window.ran=3"
CHARTS = ("first_look", "retained", "heat_map", "trade_off", "methods", "same_questions", "runs")
FULL, WORSE = ({"nli": [1.0] * n + [0.0] * (10 - n), "reasoning": [0.0] * 10} for n in (9, 7))


def with_texts(run: Run) -> Run:
    """The run with a question, a wanted answer and what was said in each row."""
    samples = run.samples
    numbers = samples["doc_id"].astype(int).astype(str)
    said = numbers.where(samples["numerator"] > 0, EVIL + " nonsense " + numbers)
    return replace(
        run, samples=samples.assign(question="Which is " + numbers + "? " + EVIL, wanted=numbers, answer=said)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, made_run) -> Path:
    """rome: seeds 1 and 2, of which 2 loses two rows of nli, 7 and 8; a method with a hostile name: none."""
    folder = tmp_path_factory.mktemp("page")
    for method, seed, later, url in (("memit", 3, FULL, HOSTILE_URL), ("rome", 1, FULL, ""), ("rome", 2, WORSE, URL)):
        made_run(folder / "runs", method, seed, {0: FULL, 5: FULL, 10: later}, perplexity={0: 20, 5: 20, 10: 20 * seed},
                 environment={"commands": [f"python run.py seed={seed}"], "wandb": [
                     {"url": url, "results": "aaaaaaaa"}]})  # fmt: skip
    runs = [with_texts(run) for run in read([folder / "runs"])]
    runs[0] = replace(runs[0], name=f"{EVIL}-tiny-00000003")
    files = report.part_files()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "part_files", lambda: [f for f in files if f.__name__.rpartition(".")[2] in CHARTS])
        report.write_report(runs, folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        yield tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def opened(browser, folder) -> Iterator:
    """opened(**settings) -> the page, drawn; what goes wrong in it, and what it loads, is kept in `.wrong`."""

    def open_page(**settings):
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings}).new_page()
        page.wrong = []
        page.on("console", lambda message: page.wrong.append(message.text))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("dialog", lambda dialog: page.wrong.append("a dialog"))
        page.on("request", lambda request: page.wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto((folder / "report.html").as_uri())
        if settings.get("java_script_enabled", True):
            page.wait_for_selector(".js-plotly-plot .scatterlayer .trace")
        return page

    return open_page


@pytest.fixture(scope="module")
def page(opened):
    return opened()


def panel(page, title: str):
    place = page.locator(".panel", has=page.get_by_text(title, exact=True)).first.locator(".plot")
    place.evaluate("plot => plot.scrollIntoView({block: 'center'})")
    return place


def hover(page, place, x: float, y: float) -> str:
    """Returns what is said where the mouse rests on a point of a plot."""
    left, top = place.evaluate(
        "(plot, [x, y]) => { const {xaxis, yaxis, margin} = plot._fullLayout, box = plot.getBoundingClientRect();"
        "return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)] }", [x, y])  # fmt: skip
    page.mouse.move(left - 30, top - 30)
    page.mouse.move(left, top, steps=4)
    label = place.locator(".hoverlayer .hovertext").first
    label.wait_for()
    return label.text_content()


def curves(place) -> int:
    return place.locator(".scatterlayer .trace .js-line").count()


def test_a_hovered_point_says_run_seed_and_value(page):
    place = panel(page, "Abilities retained")
    said = hover(page, place, 10, 50)
    assert "rome" in said and "seed 2rome-tiny-00000002" in said and "edits applied: 10" in said
    assert said.endswith("% of the score above chance: 50")


def test_a_switch_shows_colour_dash_and_mark_of_its_method_beside_its_name(page):
    looks = ("●", "none", "rgb(0, 114, 178)"), ("■", "6 3", "rgb(213, 94, 0)")
    for switch, (mark, dash, colour) in zip(page.locator(".methods").first.locator("button").all(), looks, strict=True):
        assert switch.locator("text").text_content() == mark
        path = switch.locator("path")
        assert path.get_attribute("stroke-dasharray") == dash
        assert path.evaluate("path => getComputedStyle(path).stroke") == colour


def test_a_switch_hides_the_curves_and_rows_of_its_method(page):
    place, switch = panel(page, "Abilities retained"), page.get_by_role("button", name="rome", exact=True)
    rows = page.locator("tr[data-method=rome]").first
    assert curves(place) == 4 and rows.is_visible()  # two means, two seeds
    switch.click()
    assert switch.get_attribute("aria-pressed") == "false"
    place.locator("xpath=self::*[count(.//*[contains(@class, 'js-line')]) = 1]").wait_for()
    assert not rows.is_visible()
    switch.click()
    place.locator("xpath=self::*[count(.//*[contains(@class, 'js-line')]) = 4]").wait_for()


def test_a_plot_is_zoomed_by_the_mouse_and_put_back(page):
    place = panel(page, "Perplexity of ordinary text")
    box, shown = place.bounding_box(), "plot => plot.layout.xaxis.range"
    whole = place.evaluate(shown)
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 150, steps=5)
    page.mouse.up()
    page.wait_for_function(f"plot => ({shown})(plot)[0] > 1", arg=place.element_handle())
    low, high = place.evaluate(shown)
    assert whole[0] < low < high < whole[1]
    page.get_by_title("light or dark").click(click_count=2)  # drawn anew
    assert place.evaluate(shown) == [low, high]
    page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 100)
    page.wait_for_function(f"plot => ({shown})(plot)[0] < 0", arg=place.element_handle())


def test_a_search_finds_the_rows_that_were_lost_and_switches_hide_them(page):
    found, rows = page.locator(".found"), page.locator(".example")
    assert found.text_content() == "2 of 2 rows that changed" and rows.count() == 2
    assert page.get_by_label("All runs").locator("option").all_text_contents() == ["All runs", "rome, seed 2"]
    page.get_by_label("Search questions and answers").fill("is 8? NONSENSE")
    assert found.text_content() == "1 of 2 rows that changed"
    assert rows.locator("p").text_content() == f"Which is 8? {EVIL}"
    assert rows.locator("dt").all_text_contents() == ["wanted", "before", "5 edits", "10 edits"]
    assert rows.locator("dd").all_text_contents() == ["8", "✓ 8", "✓ 8", f"✗ {EVIL} nonsense 8"]
    page.get_by_role("button", name="rome", exact=True).click()
    assert found.text_content() == "0 of 2 rows that changed"
    page.get_by_role("button", name="rome", exact=True).click()
    page.get_by_label("Search questions and answers").fill("")
    page.get_by_label("All changes").select_option("All changes")
    page.get_by_label("All tasks").select_option("Inference")
    assert rows.count() == 2


def test_each_run_has_its_command_and_a_link_to_wandb_where_it_is_one(page):
    rows = page.locator("article", has=page.get_by_role("heading", name="Runs", exact=True)).locator("tbody tr")
    assert rows.locator(".command").all_text_contents() == [f"python run.py seed={seed}" for seed in (3, 1, 2)]
    assert rows.locator("a").evaluate_all("links => links.map(link => link.href)") == [URL]
    assert rows.first.get_by_text(HOSTILE_URL).is_visible()


def test_every_chart_is_drawn_and_nothing_is_loaded_or_goes_wrong(page):
    for place in page.locator(".panel").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()
    assert page.locator(".panel").count() == page.locator(".js-plotly-plot").count() > 8
    assert page.wrong == [] and page.evaluate("window.ran") is None
    said = hover(page, panel(page, "Perplexity of ordinary text"), 10, math.log10(3))
    assert said.startswith(EVIL) and said.endswith("unedited model's: 3")
    assert page.get_by_role("button", name=EVIL, exact=True).is_visible()
    assert page.wrong == [] and page.evaluate("window.ran") is None


def test_the_page_fits_a_phone_follows_the_systems_colours_and_is_printed_with_its_pictures(opened):
    page = opened(viewport={"width": 375, "height": 700}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(21, 24, 28)"
    page.get_by_title("light or dark").click()
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    assert not page.locator("figure img").first.is_visible()
    page.emulate_media(media="print")
    assert_only_pictures(page)


def test_without_scripts_the_pictures_are_shown(opened):
    assert_only_pictures(opened(java_script_enabled=False))


def assert_only_pictures(page):
    images = page.locator("figure img").all()
    assert len(images) == 4 and all(image.is_visible() for image in images)
    assert not page.locator(".panels").first.is_visible()
