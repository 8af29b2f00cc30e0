"""Every way a photograph comes onto the page."""

from playwright.sync_api import expect

# A drawn photograph as the browser hands it over when it is dropped or pasted.
TRANSFER = """async (name) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 96, height: 64 });
  canvas.getContext("2d").fillRect(20, 10, 40, 40);
  const blob = await new Promise((done) => canvas.toBlob(done));
  const transfer = new DataTransfer();
  transfer.items.add(new File([blob], name, { type: "image/png" }));
  return transfer;
}"""
DROP = """([target, transfer]) => {
  const details = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const type of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(type, details));
}"""
PASTE = (
    "(transfer) => document.body.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true, cancelable: true }))"
)


def hand_over(page, name):
    return page.evaluate_handle(TRANSFER, name)


def wait_for(page, name, size):
    expect(page.locator(".photo-name")).to_have_text(name)
    expect(page.locator(".head .column").first).to_contain_text(size)
    expect(page.locator(".notice")).to_be_hidden()


def test_it_is_dropped_or_pasted(page):
    target = page.query_selector(".grid .row")
    page.evaluate(DROP, [target, hand_over(page, "dropped.png")])
    wait_for(page, "dropped.png", "96 × 64")
    assert page.locator(".desk.dropping").count() == 0
    page.evaluate(PASTE, hand_over(page, "pasted.png"))
    wait_for(page, "pasted.png", "96 × 64")
    # Words into a field are the field's, even if a picture of them comes along, as from a spreadsheet.
    add_words, field = "(transfer) => (transfer.setData('text/plain', 'dog'), transfer)", page.query_selector("#l2d-label")
    field.focus()
    page.evaluate(PASTE.replace("body", "activeElement"), page.evaluate_handle(add_words, hand_over(page, "cells.png")))
    page.evaluate(DROP, [field, page.evaluate_handle(add_words, page.evaluate_handle("new DataTransfer()"))])
    # What is dragged from the page itself is no new photograph.
    page.locator(".picked").hover()
    page.mouse.down()
    page.mouse.move(700, 500, steps=5)
    page.mouse.up()
    wait_for(page, "pasted.png", "96 × 64")


def test_words_that_are_dropped_are_refused_in_words(page):
    page.evaluate(DROP, [page.query_selector(".grid .row"), page.evaluate_handle("new DataTransfer()")])
    expect(page.locator(".notice")).to_contain_text("Only files can be dropped here")


def test_several_files_at_once_are_refused_in_words(page):
    shown = page.locator(".photo-name").inner_text()
    both = page.evaluate_handle(
        "(transfer) => { transfer.items.add(new File(['x'], 'second.png')); return transfer; }", hand_over(page, "a.png")
    )
    page.evaluate(DROP, [page.query_selector(".grid .row"), both])
    expect(page.locator(".notice")).to_have_text("One photograph is compared at a time; 2 files came.")
    expect(page.locator(".photo-name")).to_have_text(shown)


def test_a_folder_is_refused_in_words(page, tmp_path, problems):
    hand = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
        hand.send("Input.dispatchDragEvent", {"type": step, "x": 700, "y": 500, "data": data})
    expect(page.locator(".notice")).to_contain_text("it is a folder")
    expect(page.locator(".photo-name")).to_have_text("Grace Hopper")
    problems.clear()  # the browser's own line about what it cannot read


def test_a_file_dropped_before_another_tab_does_not_leave_the_page(page):
    shown = page.locator(".photo-name").inner_text()
    page.get_by_role("tab", name="Results").click()
    expect(page.locator(".desk")).to_be_hidden()
    page.evaluate("document.addEventListener('drop', (event) => (window.kept = event.defaultPrevented))")
    page.evaluate(DROP, [page.query_selector("body"), hand_over(page, "a.png")])
    assert page.evaluate("window.kept")
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator(".photo-name")).to_have_text(shown)


def test_the_camera_takes_it(page):
    page.set_viewport_size({"width": 640, "height": 400})  # a window at 200%, or a phone across
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("document.querySelector('.webcam video').videoWidth > 0")
    expect(page.get_by_role("button", name="Take the photograph")).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Take the photograph").click()
    wait_for(page, "camera.png", " × ")
    expect(page.locator(".webcam")).to_be_hidden()
    assert page.evaluate("document.querySelector('.webcam video').srcObject") is None


def test_an_example_shows_who_made_it_and_the_one_before_is_let_go(page):
    page.evaluate("window.gone = []; const revoke = URL.revokeObjectURL; URL.revokeObjectURL = (url) => { gone.push(url); revoke(url); }")
    before = page.locator(".grid img").evaluate_all("(images) => [...new Set(images.map((image) => image.src))]")
    page.get_by_role("button", name="A cup of coffee").click()
    wait_for(page, "A cup of coffee", "600 × 400")
    assert page.evaluate("gone.filter(Boolean)") == before
    # A data URL would be read anew for each of them.
    assert page.locator(".grid img").first.get_attribute("src").startswith("blob:")
    expect(page.locator(".credit")).to_have_text("Rachel Michetti, Pikolo Espresso Bar (CC0)")
    expect(page.get_by_role("button", name="A cup of coffee")).to_have_attribute("aria-pressed", "true")


def test_one_that_is_chosen_while_the_page_opens_stays(context, url):
    page, held = context.new_page(), []
    page.route("**/component_server/**", lambda route: held.append(route) if not held else route.continue_())
    page.goto(url)
    page.wait_for_selector(".desk")
    while not held:
        page.wait_for_timeout(20)
    page.evaluate(PASTE, hand_over(page, "mine.png"))
    held[0].continue_()
    wait_for(page, "mine.png", "96 × 64")
    page.wait_for_selector(".grid .row")
    page.wait_for_selector(".desk[data-busy=false]")
    wait_for(page, "mine.png", "96 × 64")
    page.close()
