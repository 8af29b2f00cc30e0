import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

PAINTED = "[...document.querySelectorAll('.grid .frame canvas')].filter((canvas) => canvas.width > 0)"


def count_requests(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    return requests


def read_pixels(page):
    """What the painted cells of the grid hold, as one text."""
    return page.evaluate(f"{PAINTED}.map((canvas) => canvas.toDataURL()).join()")


def list_rows(page):
    return page.locator(".grid .row").evaluate_all("(rows) => rows.map((row) => row.dataset.label)")


def draw_photograph(width=320, height=200):
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.paste((200, 60, 40), (width // 8, height // 4, width // 2, height * 3 // 4))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(page, content, name="photograph.png"):
    page.set_input_files("#l2d-file", {"name": name, "mimeType": "image/png", "buffer": content})
    expect(page.locator(".photo-name")).to_have_text(name)
    page.wait_for_selector(".desk[data-busy=false]")


def set_slider(page, name, value):
    page.get_by_role("slider", name=name).fill(str(value))


def test_it_opens_with_an_example_already_compared(page):
    chosen = page.locator(".models input:checked").count()
    assert chosen >= 1
    assert page.locator(".head .column").count() == chosen + 1
    assert page.locator(".grid .row").count() >= 1
    assert page.locator(".grid .row").first.locator(".cell").count() == chosen + 1
    assert page.evaluate(f"{PAINTED}.length") > 0
    expect(page.locator(".photo-name")).to_have_text("Grace Hopper")


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


def test_a_photograph_is_uploaded_and_compared(page):
    before = read_pixels(page)
    # A name that would run as HTML if it were ever taken for it: the console of the page stays silent.
    upload(page, draw_photograph(), "<img src=x onerror=console.error(1)>.png")
    assert read_pixels(page) != before
    expect(page.locator(".head .column").first).to_contain_text("320 × 200")
    shape = page.locator(".frame").first.evaluate("(frame) => frame.clientWidth / frame.clientHeight")
    assert shape == pytest.approx(1.6, abs=0.03)


def test_a_long_name_is_cut_and_moves_nothing(page):
    width = page.locator(".examples").bounding_box()["width"]
    upload(page, draw_photograph(), "holiday " * 20 + ".png")
    assert page.locator(".examples").bounding_box()["width"] == width
    assert page.locator(".photo-name").get_attribute("title") == "holiday " * 20 + ".png"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_panorama_has_room(visit, width):
    page = visit(width, 844)
    upload(page, draw_photograph(1000, 100))
    cells = [cell.bounding_box() for cell in page.locator(".grid .row").first.locator(".cell:visible").all()]
    assert len({cell["y"] for cell in cells}) == len(cells) > 1
    assert min(cell["width"] for cell in cells) > width * 0.7
    expect(page.locator(".cell[data-model] .name").first).to_be_visible()
    upload(page, draw_photograph(299, 100), "not so wide.png")
    first, second = (page.locator(".grid .row .cell:visible").nth(place).bounding_box() for place in (0, 1))
    assert first["y"] == second["y"]


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


def test_the_list_of_labels_opens_in_sight(page):
    page.set_viewport_size({"width": 1280, "height": 720})
    page.get_by_role("combobox", name="Add a label").click()
    expect(page.locator("#l2d-options")).to_be_in_viewport(ratio=1)


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
    label = page.get_by_role("option").nth(1).locator("span").inner_text()
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


def test_a_model_is_hidden_and_shown_without_asking(page):
    requests, columns = count_requests(page), page.locator(".head .column").count()
    box = page.locator(".models input").first
    box.uncheck()
    assert page.locator(".head .column").count() == columns - 1
    expect(box).to_be_focused()
    box.check()
    assert page.locator(".head .column").count() == columns
    assert requests == []


def test_one_cross_hair_reads_every_model_of_the_row(page):
    row = page.locator(".grid .row").first
    resting = row.locator(".value").all_inner_texts()
    row.locator(".frame").nth(1).hover(position={"x": 40, "y": 30})
    expect(row).to_have_class("row crossed")
    assert row.locator(".cells").evaluate("(cells) => cells.style.getPropertyValue('--x')")
    pointed = row.locator(".value").all_inner_texts()
    assert len(pointed) == page.locator(".models input:checked").count()
    assert [each for each in pointed if each.startswith("max")] == []
    page.mouse.move(0, 0)
    assert row.locator(".value").all_inner_texts() == resting


def test_press_and_hold_shows_the_bare_photograph(page):
    frame = page.locator(".grid .row .frame").nth(1)
    frame.hover()
    page.mouse.down()
    expect(page.locator(".grid canvas").last).not_to_be_visible()
    page.mouse.up()
    expect(page.locator(".grid")).not_to_have_class("grid bare")


def test_the_grid_is_used_by_keyboard_alone(page):
    before = list_rows(page)
    page.locator(".cells").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".cells").first.evaluate("(cells) => cells.style.getPropertyValue('--x')") == "55.0%"
    page.keyboard.down("Space")
    expect(page.locator(".grid")).to_have_class("grid bare")
    page.keyboard.up("Space")
    page.keyboard.press("Delete")
    assert list_rows(page) == before[1:]


def test_by_keyboard_the_grid_is_one_stop_and_its_rows_keep_clear_of_the_names(visit):
    page = visit(880, 700)
    page.select_option("#l2d-minus", index=1)
    first, second = (page.locator(".cells").nth(number) for number in (0, 1))
    first.focus()
    page.keyboard.press("PageDown")
    expect(second).to_be_focused()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.keyboard.press("PageUp")
    expect(first).to_be_focused()
    names, row = page.locator(".head").bounding_box(), page.locator(".row").first.bounding_box()
    assert row["y"] >= names["y"] + names["height"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.grid')") is None


def test_every_control_has_a_name(page):
    nameless = page.locator(".desk").evaluate(
        """(desk) => [...desk.querySelectorAll("input, select, button, summary, dialog, [tabindex]")].filter((control) =>
            !control.getAttribute("aria-label") && !control.labels?.length && !control.textContent.trim() && !control.closest("dialog")
        ).map((control) => control.outerHTML)"""
    )
    assert nameless == []


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


def test_headers_name_every_model_its_score_and_what_it_cost(page):
    for column in page.locator(".head .column").all()[1:]:
        assert re.fullmatch(r".+\s+mAP \d+\.\d\s+(\d+(\.\d)? ms|from memory)", column.inner_text())


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


def test_another_kind_chosen_while_maps_are_on_their_way_is_asked_for_too(page):
    upload(page, draw_photograph(200, 120))
    page.evaluate("document.querySelector('.examples button').click()")
    page.get_by_label("Maps", exact=True).select_option("attention")
    page.wait_for_selector(".desk[data-busy=false]")
    expect(page.locator(".grid .probability").filter(has_text="…")).to_have_count(0)
    assert page.evaluate(f"{PAINTED}.length") > 0


def test_column_names_stay_in_sight(page):
    page.set_viewport_size({"width": 1280, "height": 400})
    page.mouse.wheel(0, 300)
    page.wait_for_function("document.querySelector('.head').getBoundingClientRect().top < 60")
    assert page.evaluate("document.querySelector('.head').getBoundingClientRect().top") >= 0


def test_the_address_opens_the_view_again(page, reload):
    upload(page, draw_photograph(), "mine.png")
    page.locator(".models input").first.uncheck()
    page.locator("input[value=map]").check(force=True)
    page.get_by_label("Colours").select_option("jet")
    set_slider(page, "Threshold", 30)
    page.wait_for_function("location.hash.includes('threshold=0.3')")
    before = read_pixels(page), list_rows(page), page.locator(".models input:checked").count()
    reload()
    assert (read_pixels(page), list_rows(page), page.locator(".models input:checked").count()) == before
    expect(page.get_by_label("Colours")).to_have_value("jet")
    expect(page.locator(".notice")).to_be_hidden()


def test_a_link_opens_the_tab_that_it_was_taken_on(page):
    page.get_by_role("tab", name="Results").click()
    page.wait_for_function("location.hash.includes('tab=results')")
    followed = page.context.new_page()
    followed.goto(page.url)
    expect(followed.get_by_role("tab", name="Results")).to_have_attribute("aria-selected", "true")
    followed.get_by_role("tab", name="Compare").click()
    followed.wait_for_selector(".grid .row")
    followed.wait_for_function("!location.hash.includes('tab=')")
    followed.close()


def test_an_address_of_nothing_known_opens_as_ever(page, reload):
    page.goto(page.url.split("#")[0] + "#photo=" + "0" * 64 + "&scale=huge&threshold=x&kind=magic&labels=%zz")
    reload()
    expect(page.locator(".photo-name")).to_have_text("Grace Hopper")


def test_a_link_put_into_the_address_of_the_open_page_opens_its_view(page):
    page.get_by_label("Colours").select_option("jet")
    page.wait_for_function("location.hash.includes('jet')")
    page.evaluate("location.hash = '#example=coffee&labels=cup,person&scale=map'")
    expect(page.locator(".photo-name")).to_have_text("A cup of coffee")
    page.wait_for_selector(".desk[data-busy=false]")
    assert list_rows(page) == ["cup", "person"]
    expect(page.locator("input[value=map]")).to_be_checked()
    # What the link does not name is as on a fresh page.
    expect(page.get_by_label("Colours")).to_have_value("inferno")


def test_a_link_to_what_is_in_sight_keeps_its_name(page):
    upload(page, draw_photograph(), "mine.png")
    page.wait_for_function("location.hash.includes('photo=')")
    page.evaluate("location.hash += '&threshold=0.2'")
    expect(page.get_by_role("slider", name="Threshold")).to_have_value("20")
    page.wait_for_selector(".desk[data-busy=false]")
    expect(page.locator(".photo-name")).to_have_text("mine.png")
    assert page.evaluate(f"{PAINTED}.length") > 0


def test_a_link_is_followed_as_far_as_it_can_be(page):
    page.evaluate("location.hash = '#example=coffee&labels=cup,unicorn&scale=map'")
    expect(page.locator(".notice")).to_contain_text("no label 'unicorn'")
    expect(page.locator(".photo-name")).to_have_text("A cup of coffee")
    assert list_rows(page) == ["cup"]
    expect(page.locator("input[value=map]")).to_be_checked()


def test_an_uploaded_photograph_keeps_its_name_over_a_reload(page, reload):
    upload(page, draw_photograph(180, 120), "café, no. 1.png")
    page.wait_for_function("location.hash.includes('name=')")
    reload()
    expect(page.locator(".photo-name")).to_have_text("café, no. 1.png")


def test_labels_are_added_by_their_names_between_commas_and_a_wrong_one_stays(page):
    field, rows = page.get_by_role("combobox", name="Add a label"), list_rows(page)
    page.set_viewport_size({"width": 1280, "height": 500})
    field.fill("Chair, unicorn, car")
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
        assert [option.split("\n")[0] for option in options.all_inner_texts()] == said
    assert field.get_attribute("aria-activedescendant") is None
    field.fill("motorcyle")
    field.press("Enter")
    assert list_rows(page)[-1] == "motorcycle"


def test_further_labels_add_to_what_the_photograph_cost(page):
    upload(page, draw_photograph(190, 120))
    time = page.locator(".head .time").first
    before = float(time.inner_text().removesuffix(" ms"))
    page.get_by_role("combobox", name="Add a label").fill("car")
    page.keyboard.press("Enter")
    page.wait_for_selector(".desk[data-busy=false]")
    assert float(time.inner_text().removesuffix(" ms")) >= before


def test_the_cross_hair_is_told_to_those_who_do_not_see_it(page):
    row = page.locator(".grid .row").first
    row.locator(".cells").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".voice")).to_contain_text("55 percent from the left, 50 from the top: ")
    for name in row.locator(".cell .name").all_inner_texts()[1:]:
        expect(page.locator(".voice")).to_contain_text(name)
    page.get_by_label("Minus", exact=True).select_option(index=1)
    assert "largest difference" in row.locator(".cell").last.get_attribute("aria-label")


def test_a_view_without_rows_opens_without_rows(page):
    for label in list_rows(page):
        page.get_by_role("button", name=f"Remove the row {label}").click()
    page.wait_for_function("location.hash.endsWith('labels=')")
    page.reload()
    expect(page.locator(".empty")).to_have_text("Add a label to see its maps.")
    assert list_rows(page) == []


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
    page.route("**/healthz", lambda route: route.abort())
    page.get_by_role("button", name="A cup of coffee").click()
    expect(page.locator(".notice")).to_contain_text("The server does not answer.")
    assert page.evaluate(f"{PAINTED}.length") > 0
    page.wait_for_selector(".desk[data-busy=false]")
    problems.clear()  # the browser's own lines about these answers


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


def test_controls_stand_in_line(page):
    tops = [page.locator(control).bounding_box()["y"] for control in ("#l2d-colour", "#l2d-opacity", ".save summary")]
    assert max(tops) - min(tops) < 1


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


def test_on_a_phone_the_grid_begins_in_the_upper_half_and_nothing_hides(visit):
    page = visit(390, 844)
    assert page.locator(".grid .row").first.bounding_box()["y"] < 844 * 0.55
    assert page.locator(".desk").bounding_box()["x"] < 16
    expect(page.get_by_text("Download", exact=True)).to_be_in_viewport()
    expect(page.locator("#l2d-opacity")).to_be_hidden()
    page.get_by_text("Look", exact=True).click()
    for control in ("#l2d-opacity", "#l2d-kind", "#l2d-minus", "#l2d-colour"):
        expect(page.locator(control)).to_be_in_viewport()
    expect(page.get_by_text("Download", exact=True)).to_be_in_viewport()
    page.locator(".models-box summary").click()
    expect(page.locator(".models input").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_on_a_phone_the_maps_stay_in_reach_below_all_labels(visit):
    page = visit(390, 844)
    before = page.locator(".grid .row").count()
    field = page.locator("#l2d-label")
    field.click()
    others = page.locator("#l2d-options li span").all_inner_texts()
    field.fill(",".join(others))
    field.press("Enter")
    expect(page.locator(".grid .row")).to_have_count(before + len(others))
    page.evaluate("scrollTo(0, 0)")
    expect(page.locator(".grid .row").first).to_be_in_viewport()
    field.click()
    expect(page.locator("#l2d-options")).to_have_text("All labels are shown")


def test_on_a_phone_buttons_do_not_grow_with_the_photograph(visit):
    page = visit(390, 844)
    height = page.locator(".camera").bounding_box()["height"]
    upload(page, draw_photograph(60, 600))
    assert page.locator(".camera").bounding_box()["height"] == height


def test_results_stand_beside_the_papers(page):
    page.get_by_role("tab", name="Results").click()
    expect(page.get_by_role("region", name="Scores").first).to_contain_text("Paper: ")
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator(".grid .row").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_text_stands_out(visit, width, scheme):
    page = visit(width, 844, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in (".status", ".hint", ".probability", ".chip span", ".chip small", ".tool legend"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector
    # The accent, by which one sees what is chosen and where the keyboard is.
    assert page.locator(".models input:checked").first.evaluate(CONTRAST, "backgroundColor") >= 4.5
    assert page.locator(".finder input").evaluate(CONTRAST, "borderTopColor") >= 3
    page.get_by_role("tab", name="Distil").click()
    # What is typed into a list's field is subdued until it is chosen.
    for text in (page.locator(".info-text code"), page.get_by_label(re.compile(r"^\s*Data"))):
        assert text.evaluate(CONTRAST) >= 4.5
    for field in (page.get_by_label(re.compile(r"^\s*Title")), page.locator(".l2d-form .wrap:has(> .wrap-inner)").first):
        assert field.evaluate(CONTRAST, "borderTopColor") >= 3


# Contrast of an element's text, or another part, with what is behind it, as WCAG 2 defines it.
CONTRAST = """(element, part) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = (element, part) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = getComputedStyle(element)[part];
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (pixel) => {
    const linear = (v) => (v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = pixel.map((byte) => linear(byte / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const grounds = [];
  for (let at = part ? element.parentElement : element; grounds[0]?.[3] !== 255; at = at.parentElement)
    grounds.unshift(read(at, "backgroundColor"));
  const behind = grounds.reduce((below, over) => below.map((value, i) => value + ((over[i] - value) * over[3]) / 255));
  const [low, high] = [light(behind.slice(0, 3)), light(read(element, part ?? "color"))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""
