"""A person distils: a job is started, watched, disturbed, resumed and stopped, and its student compared with the others."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

PATIENCE_MS = 120_000
TRAINING_MS = 15 * 60_000
WATCH_SCROLLING = """() => {
  const scroll = Element.prototype.scrollIntoView;
  Element.prototype.scrollIntoView = function (how) { window.scrolled = how.behavior; scroll.call(this, how); };
}"""


# As a browser does.
TRANSLATE = """() => {
  const texts = document.createTreeWalker(document.querySelector(".l2d-jobs"), NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode()) if (!texts.currentNode.parentElement.closest(".notranslate")) found.push(texts.currentNode);
  for (const text of found) text.replaceWith(Object.assign(document.createElement("font"), { textContent: text.data }));
}"""


def find_workers(state: Path) -> list[int]:
    """Living workers of a state folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"L2D_STATE={state}\0".encode() in (folder / "environ").read_bytes() and b"\0worker\0" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def open_distil(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_role("tab", name="Distil").click()


def choose(page: Page, job: str) -> None:
    page.get_by_role("radio", name=re.compile(job)).check()


def test_a_number_that_is_being_typed_is_read_as_a_whole_and_outlives_a_reload_as_does_what_is_pasted(page: Page):
    page.get_by_role("tab", name="Distil").click()
    command, epochs = page.locator(".l2d-command textarea"), page.get_by_label(re.compile(r"^\s*Epochs"))
    expect(command).to_have_value(re.compile("l2d distill"))
    epochs.fill("")
    epochs.press_sequentially("25")
    expect(command).to_have_value(re.compile("--epochs 25 "))
    title = page.get_by_label(re.compile(r"^\s*Title"))
    title.fill("Pasted")
    page.wait_for_function("sessionStorage.getItem('l2d-form').includes('Pasted')")
    # As Gradio loads the page by itself once a server that was lost is back.
    page.reload()
    expect(title).to_have_value("Pasted")
    expect(epochs).to_have_value("25")
    expect(command).to_have_value(re.compile("--epochs 25 "))
    epochs.fill("0")
    expect(command).to_have_value(re.compile("^# Epochs: "))
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)


def test_on_a_phone_short_fields_share_a_line_and_long_names_break(visit: Callable[..., Page]):
    page = visit(390, 844)
    page.get_by_role("tab", name="Distil").click()
    first, second = (page.get_by_label(re.compile(f"^\\s*{name}")).bounding_box() for name in ("Teacher epochs", "Epochs"))
    assert first is not None
    assert second is not None
    assert (first["y"], first["height"]) == (second["y"], second["height"])
    start = page.get_by_role("button", name="Start").bounding_box()
    assert start is not None
    assert start["y"] < 960
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # Beside the name of a label, however long, maps stay in sight.
    wide = page.evaluate("""() => {
      const probes = document.createElement("div");
      probes.className = "l2d-probes";
      probes.innerHTML = `<table><tr><td>${"n".repeat(200)}</td><td>map</td></tr></table>`;
      document.querySelector(".l2d-form").append(probes);
      return probes.scrollWidth - probes.clientWidth;
    }""")
    assert wide == 0


def test_the_student_before_is_chosen_again_with_the_model_it_started_from(page: Page):
    page.get_by_role("tab", name="Distil").click()
    command = page.locator(".l2d-command textarea")
    expect(command).to_have_value(re.compile("l2d distill .*--init"))
    for student in ("resnet18", "mobilenetv2_100"):
        page.get_by_label(re.compile(r"^\s*Student")).click()
        page.get_by_role("option", name=student, exact=True).click()
        expect(command).to_have_value(re.compile(f"--student {student} "))
    expect(page.get_by_text("It starts from coco-mobilenetv2-vanilla.")).to_be_visible()
    expect(command).to_have_value(re.compile("l2d distill .*--init.*--freeze-stages 3"))


def test_a_student_chosen_before_the_tab_is_answered_stays_and_is_fitted(page: Page):
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.get_by_role("tab", name="Distil").click()
    page.get_by_label(re.compile(r"^\s*Student")).click()
    page.get_by_role("option", name="resnet18", exact=True).click()
    page.route("**/queue/join*", lambda route: route.continue_())
    for route in held:
        route.continue_()
    expect(page.locator(".l2d-command textarea")).to_have_value(re.compile("--student resnet18 "))
    expect(page.get_by_text("It starts from random weights.")).to_be_visible()


def test_another_student_is_ordered_once_whatever_the_first_one_started_from(context: BrowserContext, url: str):
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    open_distil(page, url)
    command = page.locator(".l2d-command textarea")
    expect(command).to_have_value(re.compile("l2d distill .*--init"))
    page.get_by_label(re.compile(r"^\s*Student")).click()
    page.get_by_role("option", name="resnet18", exact=True).click()
    expect(command).to_have_value(re.compile("--student resnet18 "))
    expect(page.get_by_text("It starts from random weights.")).to_be_visible()
    # A double click, as slow as people's.
    start = page.locator("button.primary").filter(visible=True)
    start.evaluate("(button) => { button.click(); setTimeout(() => button.click(), 250); }")
    expect(page.get_by_text(re.compile("^Ordered as job"))).to_be_visible()
    expect(start).to_have_text("Start")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)
    page.emulate_media(reduced_motion="reduce")
    page.evaluate(WATCH_SCROLLING)
    page.get_by_role("button", name="Show it").click()
    group = page.get_by_role("radiogroup", name="Jobs")
    listed = group.get_by_role("radio", name=re.compile("First student: (queued|running)"))
    expect(listed).to_be_in_viewport()
    expect(listed).to_be_checked()
    expect(listed).to_be_focused()
    assert page.evaluate("window.scrolled") == "auto"
    page.evaluate(TRANSLATE)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".l2d-state")).to_have_text("cancelled")
    # The button is gone, and the keyboard goes on with what is there.
    expect(group.get_by_role("radio", name=re.compile("First student: cancelled"))).to_be_focused()
    # Without a yes it stays where it is, and asks again, be the server as slow as it may.
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    delete = page.get_by_role("button", name="Delete")
    page.once("dialog", lambda dialog: dialog.dismiss())
    delete.click()
    expect(delete).to_be_focused()
    with page.expect_event("dialog") as asked:
        page.once("dialog", lambda dialog: dialog.accept())
        delete.click()
    assert "a teacher too" in asked.value.message
    page.route("**/queue/join*", lambda route: route.continue_())
    for route in held:
        route.continue_()
    # What was told about the order goes with its job.
    expect(page.get_by_text("No job yet.")).to_be_visible()
    expect(start).to_be_focused()
    expect(page.get_by_text(re.compile("^Ordered as job"))).to_be_hidden()
    expect(page.get_by_role("button", name="Show it")).to_be_hidden()
    page.close()


@pytest.mark.slow
def test_a_student_is_distilled_and_compared(context: BrowserContext, url: str, state: Path):
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((url, "data:", "blob:")) else problems.append(request.url))
    open_distil(page, url)
    told = page.locator(".l2d-state")

    # The job that the form holds, on smaller pictures, and for so long that there is time to disturb it.
    for name, value in (("Title", "Mine"), ("Teacher epochs", "1"), ("Epochs", "300"), ("Image size", "32")):
        # A field's label holds its sentence, too.
        page.get_by_label(re.compile(f"^\\s*{name}")).fill(value)
        page.get_by_label(re.compile(f"^\\s*{name}")).press("Tab")
    page.get_by_role("button", name="Start").click()
    expect(told).to_have_text("running")
    expect(page.locator(".l2d-job h2")).to_contain_text("Mine")
    first = page.locator(".l2d-job small").inner_text().split()[1].rstrip(",")
    expect(page.locator(".l2d-curves polyline").first).to_be_visible(timeout=TRAINING_MS)

    # A second one waits, and is cancelled.
    page.get_by_role("button", name="Start").click()
    expect(told).to_have_text("queued")
    start = time.monotonic()
    page.get_by_role("button", name="Cancel").click()
    expect(told).to_have_text("cancelled")
    assert time.monotonic() - start < 10

    # The page is closed and opened again: the first one is where it was.
    open_distil(page, url)
    expect(told).to_have_text("cancelled")
    choose(page, first)
    expect(told).to_have_text("running")
    expect(page.locator(".l2d-probes img").first).to_be_visible(timeout=TRAINING_MS)
    scrubber = page.get_by_role("slider", name="Where the student looks after epoch")
    page.wait_for_function("(slider) => Number(slider.max) >= 3", arg=scrubber.element_handle(), timeout=TRAINING_MS)

    for number in find_workers(state):
        os.kill(number, signal.SIGKILL)
    expect(told).to_have_text("interrupted")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".l2d-job small")).to_contain_text("attempt 2")
    page.get_by_role("button", name="Stop and keep the best").click()
    expect(told).to_have_text("succeeded", timeout=TRAINING_MS)

    # Back in time: the maps after the first epoch differ from those after the last.
    last = page.locator(".l2d-probes").inner_html()
    scrubber.fill("1")
    page.wait_for_function("(last) => document.querySelector('.l2d-probes').innerHTML !== last", arg=last)
    assert page.locator(".l2d-curves .mark").count() >= 1

    # The student is in Compare beside the shipped ones, without the page being loaded again, and can be a teacher.
    page.get_by_role("tab", name="Compare").click()
    page.locator(".models label", has_text="Mine").first.click()
    expect(page.locator(".head .column", has_text="Mine")).to_have_count(1)
    page.wait_for_selector(".desk[data-busy=false]")
    assert page.locator(".head .column").count() > 2
    page.get_by_role("tab", name="Distil").click()
    page.get_by_label(re.compile(r"^\s*Teacher(?! )")).click()
    expect(page.get_by_role("option", name=re.compile(f"l2d-{first}"))).to_be_visible()
    page.keyboard.press("Escape")

    # It is deleted, but not without a yes.
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Delete").click()
    page.wait_for_timeout(3000)
    expect(page.locator(".l2d-job small")).to_contain_text(first)
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".l2d-job small")).not_to_contain_text(first)
    assert len(asked) == 2
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator(".models label", has_text="Mine")).to_have_count(0)
    assert problems == []
    page.close()
