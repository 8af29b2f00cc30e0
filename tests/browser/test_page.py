"""The page as a whole: what it opens with, its tabs, and that everything has room and stands out."""

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.desk import PAINTED, draw_photograph, upload

MARKS_OVER_NAMES = """(table) => [...table.querySelectorAll("tbody th")].flatMap((name) => {
    const box = name.getBoundingClientRect(), places = [...Array(40).keys()].map((step) => box.x + (box.width * step) / 40);
    return places.map((x) => document.elementFromPoint(x, box.y + box.height / 2)).filter((found) => found?.matches("td i"));
}).length"""


def count_shades(page, table):
    """How many colours there are at the lower edge of a table's first column, where no name reaches."""
    box, names = table.bounding_box(), table.locator("tbody th").first.bounding_box()
    place = {"x": names["x"] + names["width"] - 6, "y": box["y"] + box["height"] - 12, "width": 4, "height": 12}
    return len(Image.open(io.BytesIO(page.screenshot(clip=place))).convert("RGB").getcolors())


def test_it_opens_with_an_example_already_compared(opened):
    chosen = opened.locator(".models input:checked").count()
    assert chosen >= 1
    assert opened.locator(".head .column").count() == chosen + 1
    assert opened.locator(".grid .row").count() >= 1
    assert opened.locator(".grid .row").first.locator(".cell").count() == chosen + 1
    assert opened.evaluate(f"{PAINTED}.length") > 0
    expect(opened.locator(".photo-name")).to_have_text("Grace Hopper")


def test_nothing_beside_the_photograph_moves_when_it_comes(page):
    held, box = [], page.locator(".models-box")
    page.route("**/component_server/**", lambda route: held.append(route))
    page.reload(wait_until="commit")
    expect(page.locator(".empty")).to_have_text("Comparing the first photograph…")
    before = box.bounding_box()["y"]
    page.wait_for_function("document.querySelector('.desk').dataset.busy === 'true'")
    held[0].continue_()
    page.wait_for_selector(".grid .row")
    assert abs(box.bounding_box()["y"] - before) < 2


def test_on_paper_there_are_names_at_every_map_and_nothing_to_press(page):
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator(".tools")).to_be_hidden()
    expect(page.locator(".cell[data-model] .name").last).to_be_visible()
    # Above one another, photograph and names would take a page across, and leave no room for the first row.
    picture, name = page.locator(".picked").bounding_box(), page.locator(".photo-name").bounding_box()
    assert name["x"] > picture["x"] + picture["width"]
    assert page.locator(".head").evaluate("(head) => getComputedStyle(head).breakAfter") == "avoid"
    # Else it clips what is moved to the next page.
    assert page.locator(".gradio-container").evaluate("(page) => getComputedStyle(page).overflow") == "visible"


def test_in_forced_colours_one_sees_which_tab_is_in_front_and_what_opens_a_list(page):
    page.emulate_media(forced_colors="active")
    assert page.locator("#l2d-kind").evaluate("(field) => getComputedStyle(field).appearance") == "auto"
    front = page.get_by_role("tab", name="Compare")
    assert front.evaluate("(tab) => getComputedStyle(tab, '::after').forcedColorAdjust") == "none"


def test_results_stand_beside_the_papers_and_what_differs_below_them(page):
    page.get_by_role("tab", name="Results").click()
    expect(page.get_by_role("region", name="Scores").first).to_contain_text("Paper: ")
    notes = page.get_by_text("epochs instead of 80.").first
    assert not notes.evaluate("(note) => note.checkVisibility()")
    page.emulate_media(media="print")
    assert notes.evaluate("(note) => note.checkVisibility()")  # nobody can open them on paper
    # Nor is there more to be scrolled to.
    tall = page.locator(".l2d-results .tall").first
    assert tall.evaluate("(table) => ['::before', '::after'].map((part) => getComputedStyle(table, part).content)") == ["none", "none"]
    assert page.locator(".l2d-results h2").first.evaluate("(title) => getComputedStyle(title).breakAfter") == "avoid"
    page.emulate_media(media="screen")
    page.get_by_text("What differs from the paper").first.click()
    expect(notes).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator(".l2d-results .legend").first).to_be_visible()
    labels = page.locator(".l2d-results .tall").first
    labels.scroll_into_view_if_needed()
    labels.evaluate("(labels) => { labels.scrollLeft = 130; }")
    assert labels.evaluate(MARKS_OVER_NAMES) == 0
    # A shadow tells that there is more below, over the names as well; at the end there is a line alone.
    assert count_shades(page, labels) > 4
    labels.evaluate("(labels) => { labels.scrollTop = labels.scrollHeight; }")
    assert count_shades(page, labels) <= 2
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator(".grid .row").first).to_be_visible()


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


def test_column_names_stay_in_sight(page):
    page.set_viewport_size({"width": 1280, "height": 400})
    page.mouse.wheel(0, 300)
    page.wait_for_function("document.querySelector('.head').getBoundingClientRect().top < 60")
    assert page.evaluate("document.querySelector('.head').getBoundingClientRect().top") >= 0


def test_controls_stand_in_line_beside_a_scroll_bar(opened):
    opened.set_viewport_size({"width": 1280 - 17, "height": 900})
    tops = [opened.locator(control).bounding_box()["y"] for control in ("#l2d-colour", "#l2d-threshold", ".save summary")]
    opened.set_viewport_size({"width": 1280, "height": 900})
    assert max(tops) - min(tops) < 1


def test_maps_are_large_on_a_large_screen(opened):
    opened.set_viewport_size({"width": 2560, "height": 1440})
    width = opened.locator(".grid .row .frame").first.bounding_box()["width"]
    opened.set_viewport_size({"width": 1280, "height": 900})
    assert width > 400


def test_controls_hold_their_text_where_a_browser_enlarges_it_alone(opened):
    larger = opened.add_style_tag(content=".tools * { font-size: 24px !important; }")
    boxes = opened.locator(".segments span, .save summary")
    cut = boxes.evaluate_all("(boxes) => boxes.filter((box) => box.scrollHeight > box.clientHeight).map((box) => box.innerText)")
    kind = opened.locator("#l2d-kind").bounding_box()["width"]
    larger.evaluate("(style) => style.remove()")
    assert cut == []
    assert kind > opened.locator("#l2d-kind").bounding_box()["width"]


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
    others = page.locator("#l2d-options li span").all_text_contents()
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
