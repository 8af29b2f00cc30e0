"""The page for those who use it without a pointer, or without seeing it."""

from playwright.sync_api import expect

from tests.browser.desk import list_rows


def test_every_control_has_a_name(page):
    nameless = page.locator(".desk").evaluate(
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
