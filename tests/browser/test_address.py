"""Links: the address names what is shown, and opens it again."""

from playwright.sync_api import expect

from tests.browser.desk import PAINTED, draw_photograph, list_rows, read_pixels, set_slider, upload


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


def test_a_view_without_rows_opens_without_rows(page):
    for label in list_rows(page):
        page.get_by_role("button", name=f"Remove the row {label}").click()
    page.wait_for_function("location.hash.endsWith('labels=')")
    page.reload()
    expect(page.locator(".empty")).to_have_text("Add a label to see its maps.")
    assert list_rows(page) == []


def test_an_uploaded_photograph_keeps_its_name_over_a_reload(page, reload):
    upload(page, draw_photograph(180, 120), "café, no. 1.png")
    page.wait_for_function("location.hash.includes('name=')")
    reload()
    expect(page.locator(".photo-name")).to_have_text("café, no. 1.png")


def test_a_link_opens_the_tab_that_it_was_taken_on(page):
    page.get_by_role("tab", name="Results").evaluate("(tab) => (tab.innerHTML = '<font>Ergebnisse</font>')")  # as browsers translate
    page.get_by_role("tab", name="Ergebnisse").click()
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
