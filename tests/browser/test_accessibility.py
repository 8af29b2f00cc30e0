"""The page for those who use it without a pointer, or without seeing it."""

import re
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from app.jobs import ENDED
from app.orders import choose_first_order
from app.queue import Queue
from tests.browser.desk import list_rows, set_slider

# Of what has the keyboard, or of the list's field around it.
OUTLINE = "getComputedStyle(document.activeElement.closest('.wrap:has(> .wrap-inner)') ?? document.activeElement).outlineStyle"


@pytest.fixture
def jobs(url, state):
    """Three jobs of a name in one long word that were cancelled, oldest first."""
    queue, order = Queue(state), choose_first_order([]).model_dump() | {"title": "Donaudampfschifffahrtsgesellschaftskapitänsmütze"}
    jobs = [queue.cancel(queue.submit(order).id).id for _ in range(3)]
    yield jobs
    for job in jobs:
        # One that the worker had begun is ended by it.
        while queue.find(job).state not in ENDED:
            time.sleep(0.1)
        queue.delete(job)


def test_every_control_has_a_name(opened):
    nameless = opened.locator(".desk").evaluate(
        """(desk) => [...desk.querySelectorAll("input, select, button, summary, dialog, [tabindex]")].filter((control) =>
            !control.getAttribute("aria-label") && !control.labels?.length && !control.textContent.trim() && !control.closest("dialog")
        ).map((control) => control.outerHTML)"""
    )
    assert nameless == []


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
    page.locator(".cells").first.focus()
    page.keyboard.press("Backspace")
    assert list_rows(page) == before[2:]


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


def test_the_cross_hair_is_told_to_those_who_do_not_see_it(page):
    row = page.locator(".grid .row").first
    row.locator(".cells").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".voice")).to_contain_text("55 percent from the left, 50 from the top: ")
    for name in row.locator(".cell .name").all_inner_texts()[1:]:
        expect(page.locator(".voice")).to_contain_text(name)
    page.get_by_label("Minus", exact=True).select_option(index=1)
    assert "largest difference" in row.locator(".cell").last.get_attribute("aria-label")


def test_what_more_labels_bring_has_the_keyboard_that_their_button_had(page):
    set_slider(page, "Threshold", 1)
    before = list_rows(page)
    page.get_by_role("button", name=re.compile("Show .* more")).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".grid .cells").nth(len(before))).to_be_focused()


def test_the_download_menu_opens_and_closes_by_keyboard(page):
    opener, menu = page.get_by_text("Download", exact=True), page.get_by_role("group", name="Download")
    opener.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(menu.get_by_role("button").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(menu.get_by_role("button").count() + 1):
        page.keyboard.press("Tab")
    # It would lie over what the keyboard is in now.
    expect(page.locator(".grid .cells").first).to_be_focused()
    expect(menu).to_be_hidden()
    opener.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    with page.expect_download():
        page.keyboard.press("Enter")
    expect(page.locator(".save summary")).to_be_focused()


def test_arrows_move_through_the_jobs_and_need_not_wait_for_them(page, jobs):
    held = []
    page.get_by_role("tab", name="Distil").click()
    oldest, _, newest = (page.get_by_role("radio", name=re.compile(job)) for job in jobs)
    expect(newest).to_be_checked()
    newest.focus()
    page.route("**/queue/join*", lambda route: held.append(route))
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(200)
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(200)
    page.route("**/queue/join*", lambda route: route.continue_())
    for route in held:
        route.continue_()
    expect(page.locator(".l2d-job small")).to_contain_text(jobs[0])
    expect(oldest).to_be_checked()
    expect(oldest).to_be_focused()
    # All of them are one stop.
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(oldest).to_be_focused()


def test_the_keyboard_goes_through_the_form_field_by_field_and_is_marked(page):
    page.get_by_role("tab", name="Distil").click()
    more = page.get_by_role("button", name="More settings")
    more.focus()
    page.keyboard.press("Enter")
    expect(more).to_have_attribute("aria-expanded", "true")
    page.get_by_label(re.compile(r"^\s*Title")).focus()
    marks = []
    while not page.get_by_role("button", name="Start").evaluate("(start) => start === document.activeElement"):
        page.keyboard.press("Tab")
        marks.append(page.evaluate(OUTLINE))
    # Every field but the first one, and two buttons.
    assert marks == ["solid"] * (page.locator(".l2d-form :is(input, textarea):enabled").filter(visible=True).count() + 1)
    # Each field's list went with the keyboard: none lies over the others.
    expect(page.locator(".option-list")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_nothing_wrong(visit, jobs, width, scheme):
    page = visit(width, 844, scheme)
    page.get_by_text("Download", exact=True).click()
    wrong = find_violations(page)
    page.get_by_role("tab", name="Results").click()
    expect(page.locator(".l2d-results h2").first).to_be_visible()
    wrong += find_violations(page)
    page.get_by_role("tab", name="Distil").click()
    page.get_by_role("button", name="More settings").click()
    page.get_by_role("button", name="Log").click()
    expect(page.locator(".l2d-job h2")).to_be_visible()
    wrong += find_violations(page)
    assert wrong == []
    for name in page.locator(".l2d-job h2, .l2d-jobs label span").all():
        assert name.evaluate("(name) => name.getBoundingClientRect().right < innerWidth")


def find_violations(page):
    """What axe finds on the tab in front: the rule, and each element that breaks it."""
    found = Axe().run(page).response["violations"]
    return [(violation["id"], node["html"]) for violation in found for node in violation["nodes"]]
