"""How maps are drawn, pointed at, and saved as they look."""

import json

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.desk import PAINTED, count_requests, list_rows, read_pixels, set_slider

# The threshold goes last: beyond it, other changes would hardly be seen.
CHANGES = {
    "scale": lambda page: page.get_by_text("Grid", exact=True).click(),
    "opacity": lambda page: set_slider(page, "Opacity", 30),
    "colours": lambda page: page.get_by_label("Colours").select_option("jet"),
    "interpolation": lambda page: page.get_by_text("Cells", exact=True).click(),
    "difference": lambda page: page.get_by_label("Minus", exact=True).select_option(index=1),
    "threshold": lambda page: set_slider(page, "Threshold", 99),
}


def test_how_maps_are_drawn_changes_at_once_and_asks_nobody(page):
    # From nothing predicted to everything predicted, so that the threshold fades something whatever the models are.
    set_slider(page, "Threshold", 1)
    requests = count_requests(page)
    for name, change in CHANGES.items():
        before = read_pixels(page)
        change(page)
        assert read_pixels(page) != before, name
    page.wait_for_timeout(300)
    assert requests == []


def test_every_scale_has_its_colour_bars_in_the_units_of_the_maps(page):
    rows, cells = page.locator(".grid .row").count(), page.evaluate(f"{PAINTED}.length")
    for scale, bars in (("row", page.locator(".row header .bar:visible")), ("map", page.locator("figcaption .bar:visible"))):
        page.locator(f"input[value={scale}]").check(force=True)
        assert bars.count() == {"row": rows, "map": cells}[scale]
        assert float(bars.first.locator("span").last.inner_text().replace("−", "-")) > 0
    page.locator("input[value=grid]").check(force=True)
    expect(page.locator(".head .bar")).to_be_visible()
    assert page.locator(".row .bar:visible").count() == 0


def test_values_are_the_raw_ones_per_picture_area(page):
    for kind in ("attention", "layercam"):
        page.get_by_label("Maps", exact=True).select_option(kind)
        page.wait_for_selector(".desk[data-busy=false]")
        page.get_by_text("Download", exact=True).click()
        with page.expect_download() as download:
            page.locator("[data-save=json]").click()
        answer = json.loads(download.value.path().read_bytes())
        row, highest = page.locator(".grid .row").first, 0.0
        for model in answer["models"]:
            evidence = np.array(model["maps"][answer["labels"][0]])
            highest = max(highest, evidence.max() * evidence.size)
            shown = row.locator(f".cell[data-model={model['name']}] .value")
            assert float(shown.inner_text().removeprefix("max ")) == pytest.approx(evidence.max() * evidence.size, rel=0.05)
        assert float(row.locator("header .bar span").last.inner_text()) == pytest.approx(highest, rel=0.05)


def test_one_cross_hair_reads_every_model_of_the_row(opened):
    row = opened.locator(".grid .row").first
    resting = row.locator(".value").all_inner_texts()
    row.locator(".frame").nth(1).hover(position={"x": 40, "y": 30})
    expect(row).to_have_class("row crossed")
    assert row.locator(".cells").evaluate("(cells) => cells.style.getPropertyValue('--x')")
    pointed = row.locator(".value").all_inner_texts()
    assert len(pointed) == opened.locator(".models input:checked").count()
    assert [each for each in pointed if each.startswith("max")] == []
    opened.mouse.move(0, 0)
    assert row.locator(".value").all_inner_texts() == resting


def test_press_and_hold_shows_the_bare_photograph(opened):
    frame = opened.locator(".grid .row .frame").nth(1)
    frame.hover()
    opened.mouse.down()
    expect(opened.locator(".grid canvas").last).not_to_be_visible()
    opened.mouse.up()
    expect(opened.locator(".grid")).not_to_have_class("grid bare")
    opened.mouse.move(0, 0)


def test_what_is_shown_can_be_downloaded(page):
    # One row: a figure of many takes a slow machine long.
    for label in list_rows(page)[1:]:
        page.get_by_role("button", name=f"Remove the row {label}").click()
    for kind, start in {"png": b"\x89PNG", "pdf": b"%PDF", "npz": b"PK", "json": b"{"}.items():
        page.get_by_text("Download", exact=True).click()
        with page.expect_download() as download:
            page.locator(f"[data-save={kind}]").click()
        assert download.value.suggested_filename.endswith(f".{kind}")
        assert download.value.path().read_bytes().startswith(start)
    # And by the browser's own menu, which takes the canvas alone: a map with its photograph.
    frame = page.locator(".grid .row .frame").nth(1)
    frame.click(button="right")
    read = "(canvas) => [canvas.width, canvas.getContext('2d').getImageData(0, 0, 1, 1).data[3]]"
    assert frame.locator("canvas").evaluate(read) == [frame.locator("img").evaluate("(image) => image.naturalWidth"), 255]


def test_a_figure_is_asked_for_as_it_looks_here(page):
    page.locator("input[value=grid]").check(force=True)
    page.get_by_text("Cells", exact=True).click()
    page.get_by_label("Minus", exact=True).select_option(index=1)
    reference = page.get_by_label("Minus", exact=True).input_value()
    for label in list_rows(page)[1:]:
        page.get_by_role("button", name=f"Remove the row {label}").click()
    sent = []
    page.on("request", lambda request: sent.append(request.post_data))
    page.get_by_text("Download", exact=True).click()
    with page.expect_download():
        page.locator("[data-save=png]").click()
    asked = json.loads(sent[0])["data"]
    assert {name: asked[name] for name in ("scale", "smooth", "minus", "colormap", "kind", "threshold", "opacity")} == {
        "scale": "grid", "smooth": False, "minus": reference, "colormap": "inferno", "kind": "layercam", "threshold": 0.5, "opacity": 0.85,
    }  # fmt: skip
