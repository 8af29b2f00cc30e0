"""Labels, each a row: found, added by name, and taken away."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.browser.desk import draw_photograph, list_rows, set_slider, upload


def test_the_list_of_labels_opens_in_sight_and_stays_while_arrows_go_through_it(page):
    page.set_viewport_size({"width": 1280, "height": 720})
    field, options = page.get_by_role("combobox", name="Add a label"), page.locator("#l2d-options")
    field.click()
    expect(options).to_be_in_viewport(ratio=1)
    # As where the keyboard of a phone comes.
    page.set_viewport_size({"width": 1280, "height": 440})
    expect(options).to_be_in_viewport(ratio=1)
    # Options that are not laid out yet are as high as the others.
    height = options.evaluate("(list) => list.scrollHeight / list.children.length")
    first = options.get_by_role("option").first.element_handle()
    assert height == pytest.approx(first.bounding_box()["height"], abs=0.5)
    for _ in range(30):
        field.press("ArrowDown")
    assert first.evaluate("(option) => option.isConnected && option.ariaSelected") == "false"
    marked = options.locator("[aria-selected=true]")
    expect(marked).to_have_attribute("id", field.get_attribute("aria-activedescendant"))
    expect(marked).to_be_in_viewport(ratio=1)
    field.press("Escape")
    field.press("ArrowDown")
    expect(options.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    # In the lowest windows, too, with its field.
    field.press("Escape")
    page.set_viewport_size({"width": 640, "height": 280})
    field.click()
    for part in (field, options):
        expect(part).to_be_in_viewport(ratio=1)


def test_a_press_beside_the_list_of_labels_hits_what_it_began_on(page):
    field, options = page.get_by_role("combobox", name="Add a label"), page.locator("#l2d-options")
    rows = list_rows(page)
    for pressed in (page.locator(".chip").first, page.get_by_text("Download", exact=True)):
        field.fill("c")
        # A finger that only scrolls the list begins with a press, too.
        options.get_by_role("option").first.dispatch_event("pointerdown", {"pointerType": "touch"})
        pressed.click()
        expect(options).to_be_hidden()
    assert list_rows(page) == rows[1:]
    expect(page.locator("[data-save=png]")).to_be_visible()
    field.click()
    field.press("Tab")
    expect(options).to_be_hidden()


def test_a_label_is_added_by_name_and_costs_one_request_without_the_photograph(page):
    upload(page, draw_photograph())
    before, sent = list_rows(page), []
    page.on("request", lambda request: sent.append(request.post_data))
    page.get_by_role("combobox", name="Add a label").click()
    label = page.get_by_role("option").nth(1).locator("span").text_content()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".grid .row")).to_have_count(len(before) + 1)
    page.wait_for_selector(".desk[data-busy=false]")
    assert list_rows(page) == [*before, label]
    assert len(sent) == 1
    assert json.loads(sent[0])["data"]["labels"] == [label]
    # Taking it away and back again asks nobody.
    page.get_by_role("button", name=f"Remove the row {label}").click()
    assert list_rows(page) == before
    page.get_by_role("combobox", name="Add a label").fill(label)
    page.keyboard.press("Enter")
    assert label in list_rows(page)
    assert len(sent) == 1


def test_labels_are_added_by_their_names_between_commas_and_a_wrong_one_stays(page):
    field, rows = page.get_by_role("combobox", name="Add a label"), list_rows(page)
    page.set_viewport_size({"width": 1280, "height": 500})
    field.fill("Chair, unicorn, car")
    # As input methods end what they composed, in Safari and elsewhere.
    for composing in ({"keyCode": 229}, {"isComposing": True}):
        field.dispatch_event("keydown", {"key": "Enter"} | composing)
    expect(field).to_have_value("Chair, unicorn, car")
    field.press("Enter")
    expect(field).to_have_value("unicorn")
    expect(page.get_by_text("No label of that name")).to_be_visible()
    assert list_rows(page) == [*rows, "chair", "car"]
    expect(page.locator(".grid .row[data-label=car] h3")).to_be_in_viewport()
    # One that has a row already is gone to.
    field.fill(rows[0])
    field.press("Enter")
    expect(field).to_have_value("")
    expect(page.locator(f".grid .row[data-label={rows[0]}] h3")).to_be_in_viewport()


def test_a_misspelt_label_is_found_and_what_cannot_be_is_said(page):
    field, options = page.get_by_role("combobox", name="Add a label"), page.locator("#l2d-options").get_by_role("option")
    for text, said in (
        ("motorcyle", ["motorcycle"]),
        ("spon", ["spoon"]),
        ("unicorn", ["No label of that name"]),
        ("spoon, Chair, unicorn", ["Enter adds spoon, chair"]),
        (list_rows(page)[0], ["Already shown"]),
    ):
        field.fill(text)
        assert options.evaluate_all("(options) => options.map((option) => option.firstChild.textContent)") == said
    assert field.get_attribute("aria-activedescendant") is None
    field.fill("motorcyle")
    field.press("Enter")
    assert list_rows(page)[-1] == "motorcycle"


def test_at_most_eight_rows_and_more_on_demand(page):
    set_slider(page, "Threshold", 1)
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".photo-name")).to_have_text("A cup of coffee")
    page.wait_for_selector(".desk[data-busy=false]")
    assert len(list_rows(page)) == 8
    page.get_by_role("button", name=re.compile("Show .*")).click()
    page.wait_for_selector(".desk[data-busy=false]")
    assert len(list_rows(page)) > 8
    expect(page.locator(".more button")).to_have_count(0)


@pytest.mark.parametrize(("threshold", "count"), [(1, 8), (99, 3)])
def test_all_rows_go_at_once_and_those_that_the_server_suggests_come_back(page, threshold, count):
    set_slider(page, "Threshold", threshold)
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".photo-name")).to_have_text("A cup of coffee")
    page.wait_for_selector(".desk[data-busy=false]")
    suggested = list_rows(page)
    page.get_by_role("combobox", name="Add a label").fill("zebra, skis")
    page.keyboard.press("Enter")
    assert len(list_rows(page)) == count + 2
    page.get_by_role("button", name="Remove all").click()
    assert list_rows(page) == []
    # The same control, where the keyboard already is.
    expect(page.get_by_role("button", name="Show suggested")).to_be_focused()
    page.keyboard.press("Enter")
    assert list_rows(page) == suggested
