"""What is chosen on the Compare tab, when the server is asked for it, and what is said where it cannot be shown."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.desk import PAINTED, count_requests, draw_photograph, list_rows, read_pixels, upload


def test_headers_name_every_model_its_score_and_what_it_cost(opened):
    for column in opened.locator(".head .column").all()[1:]:
        assert re.fullmatch(r".+\s+mAP \d+\.\d\s+(\d+(\.\d)? ms|from memory)", column.inner_text())


def test_a_model_is_hidden_and_shown_without_asking(page):
    requests, columns = count_requests(page), page.locator(".head .column").count()
    box = page.locator(".models input").first
    box.uncheck()
    assert page.locator(".head .column").count() == columns - 1
    expect(box).to_be_focused()
    box.check()
    assert page.locator(".head .column").count() == columns
    assert requests == []


def test_a_click_is_not_lost_to_an_answer_that_comes_meanwhile(page):
    held, box = [], page.locator(".models input").first
    page.route("**/component_server/**", lambda route: held.append(route))
    page.get_by_role("combobox", name="Add a label").fill("car")
    page.keyboard.press("Enter")
    box.hover()
    page.mouse.down()
    held[0].continue_()
    page.wait_for_selector(".desk[data-busy=false]")
    page.mouse.up()
    expect(box).not_to_be_checked()
    expect(page.locator(".grid .row[data-label=car] .cell[data-model]")).to_have_count(page.locator(".models input:checked").count())


def test_attention_is_asked_for_once_and_then_remembered(page):
    evidence, requests = read_pixels(page), count_requests(page)
    page.get_by_label("Maps", exact=True).select_option("attention")
    page.wait_for_function(f"(before) => {PAINTED}.map((canvas) => canvas.toDataURL()).join() !== before", arg=evidence)
    page.wait_for_selector(".desk[data-busy=false]")
    expect(page.locator(".status")).to_contain_text("the head's attention")
    asked = len(requests)
    assert asked == 1
    page.get_by_label("Maps", exact=True).select_option("layercam")
    assert read_pixels(page) == evidence
    assert len(requests) == asked


def test_another_kind_chosen_while_maps_are_on_their_way_is_asked_for_too(page):
    upload(page, draw_photograph(200, 120))
    page.evaluate("document.querySelector('.examples button').click()")
    page.get_by_label("Maps", exact=True).select_option("attention")
    page.wait_for_selector(".desk[data-busy=false]")
    expect(page.locator(".grid .probability").filter(has_text="…")).to_have_count(0)
    assert page.evaluate(f"{PAINTED}.length") > 0


def test_further_labels_add_to_what_the_photograph_cost(page):
    upload(page, draw_photograph(190, 120))
    time = page.locator(".head .time").first
    before = float(time.inner_text().removesuffix(" ms"))
    page.get_by_role("combobox", name="Add a label").fill("car")
    page.keyboard.press("Enter")
    page.wait_for_selector(".desk[data-busy=false]")
    assert float(time.inner_text().removesuffix(" ms")) >= before


def test_a_photograph_is_uploaded_and_compared(page):
    before = read_pixels(page)
    # A name that would run as HTML if it were ever taken for it: the console of the page stays silent.
    upload(page, draw_photograph(), "<img src=x onerror=console.error(1)>.png")
    assert read_pixels(page) != before
    expect(page.locator(".head .column").first).to_contain_text("320 × 200")
    shape = page.locator(".frame").first.evaluate("(frame) => frame.clientWidth / frame.clientHeight")
    assert shape == pytest.approx(1.6, abs=0.03)


def test_a_file_that_is_no_picture_is_refused_in_words_and_the_page_goes_on(page):
    before = read_pixels(page)
    page.set_input_files("#l2d-file", {"name": "broken.png", "mimeType": "image/png", "buffer": b"not a picture"})
    expect(page.get_by_role("alert").filter(has_text="broken.png: Expected a picture")).to_be_visible()
    # The photograph before is still there, under its own name.
    expect(page.locator(".photo-name")).to_have_text("Grace Hopper")
    assert read_pixels(page) == before
    upload(page, draw_photograph())
    expect(page.locator(".notice")).to_be_hidden()
    assert page.evaluate(f"{PAINTED}.length") > 0


def test_more_models_than_a_request_may_name_are_refused_in_words(page, reload):
    most = page.locator(".models input:checked").count() - 1

    def narrow(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'"max_models": ?\d+', f'"max_models": {most}', answer.text()))

    page.route("**/component_server/**", narrow)
    page.locator(".models input").first.uncheck()
    page.wait_for_function("location.hash.includes('models=')")
    reload()
    page.locator(".models input").first.click()
    expect(page.locator(".notice")).to_contain_text(f"At most {most} models")
    expect(page.locator(".models input").first).not_to_be_checked()
    assert page.locator(".head .column").count() == most + 1


def test_more_labels_than_a_request_may_name_are_asked_for_one_after_the_other(page):
    def narrow(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub(r'"max_labels": ?\d+', '"max_labels": 2', answer.text()))

    page.route("**/component_server/**", narrow)
    page.evaluate("location.hash = '#example=coffee&labels=cup,person,dog'")
    page.wait_for_function("location.hash.startsWith('#example=coffee') && document.querySelector('.desk').dataset.busy === 'false'")
    asked = count_requests(page)
    page.get_by_role("combobox", name="Add a label").fill("car, bus, cat, chair, bird")
    page.keyboard.press("Enter")
    expect(page.locator(".grid .row")).to_have_count(8)
    expect(page.locator(".grid .note").filter(has_text="…")).to_have_count(0)
    assert len(asked) == 3


def test_a_comparison_that_is_on_its_way_is_said(page):
    for box in page.locator(".models input").all():
        box.uncheck()
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".photo-name")).to_have_text("A cup of coffee")
    held = []
    page.route("**/component_server/**", lambda route: held.append(route))
    page.locator(".models input").first.check()
    expect(page.locator(".empty")).to_have_text("Comparing…")
    held[0].continue_()
    expect(page.locator(".empty")).to_be_hidden()
    assert page.evaluate(f"{PAINTED}.length") > 0


def test_a_server_that_refuses_is_told_from_one_that_is_gone(page, problems):
    page.route("**/component_server/**", lambda route: route.fulfill(status=429, body="{}"))
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".notice")).to_contain_text("The server runs, but refused to answer")
    # As one of many megabytes over a slow line is, which the server waits for no longer.
    page.set_input_files("#l2d-file", {"name": "large.png", "mimeType": "image/png", "buffer": draw_photograph()})
    expect(page.locator(".notice")).to_contain_text("large.png: The server runs, but did not take the photograph")
    # As one does that was updated meanwhile, and knows no part of this page any more.
    page.route("**/app_id", lambda route: route.fulfill(json={"app_id": 1}))
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".notice")).to_contain_text("reload the page")
    page.route("**/healthz", lambda route: route.abort())
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".notice")).to_contain_text("The server does not answer.")
    assert page.evaluate(f"{PAINTED}.length") > 0
    page.wait_for_selector(".desk[data-busy=false]")
    problems.clear()  # the browser's own lines about these answers


def test_maps_that_could_not_be_had_are_told_where_one_is_and_asked_for_again(page, problems):
    page.set_viewport_size({"width": 1280, "height": 500})
    page.route("**/component_server/**", lambda route: route.abort())
    page.route("**/healthz", lambda route: route.abort())
    page.get_by_role("combobox", name="Add a label").fill("car")
    page.keyboard.press("Enter")
    missing = page.locator(".grid .row[data-label=car] .note").filter(has_text="…")
    expect(page.locator(".grid .row[data-label=car]")).to_be_in_viewport()
    expect(page.locator(".notice")).to_contain_text("The server does not answer.")
    expect(page.locator(".notice")).to_be_in_viewport(ratio=1)
    assert missing.count() > 0
    page.unroute_all()
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(missing).to_have_count(0)
    expect(page.locator(".notice")).to_be_hidden()
    problems.clear()


def test_nothing_chosen_is_said(page):
    for box in page.locator(".models input").all():
        box.uncheck()
    expect(page.locator(".empty")).to_have_text("Choose at least one model.")
    expect(page.locator(".grid")).to_be_hidden()
    page.locator(".models input").first.check()
    for label in list_rows(page):
        page.get_by_role("button", name=f"Remove the row {label}").click()
    expect(page.locator(".empty")).to_have_text("Add a label to see its maps.")


def test_a_complaint_goes_with_its_cause(page):
    boxes = page.locator(".models input").all()
    for box in boxes:
        box.uncheck()
    page.get_by_text("Download", exact=True).click()
    page.locator("[data-save=png]").click()
    expect(page.locator(".notice")).to_contain_text("There is nothing to save")
    boxes[0].check()
    expect(page.locator(".notice")).to_be_hidden()
