"""Models that come and go while the page is open, and that know other labels than the shipped ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

from l2d.checkpoint import ModelCard, save_checkpoint
from l2d.model import create_model
from tests.browser.desk import draw_photograph, list_rows, upload

LABELS = ("Donaudampfschifffahrtsgesellschaftskapitänsmütze", "a name of several words that are as long as no other", "写真機")


@pytest.fixture
def newcomer(visit: Callable[..., Page], state: Path):
    """A page that was opened before a model of other labels came, which is compared alone; returns both."""
    page, folder = visit(), state / "models" / "newcomer"
    torch.manual_seed(0)
    model = create_model("test_resnet", len(LABELS), image_size=64, width=16, feedforward=16)
    save_checkpoint(folder, model, ModelCard("x", "Newcomer", "student", "l2d", "test_resnet", LABELS, 64, width=16, feedforward=16))
    page.evaluate("dispatchEvent(new Event('focus'))")
    for box in page.locator(".models input").all():
        box.uncheck()
    page.get_by_role("checkbox", name="Newcomer").check()
    page.wait_for_selector(".desk[data-busy=false]")
    yield page, folder
    shutil.rmtree(folder, ignore_errors=True)


def test_one_of_other_labels_begins_with_its_own_rows_and_can_be_saved(newcomer):
    page, _ = newcomer
    expect(page.locator(".grid .row").first).to_be_visible()
    assert set(list_rows(page)) <= set(LABELS)
    page.get_by_text("Download", exact=True).click()
    with page.expect_download():
        page.locator("[data-save=json]").click()
    page.get_by_role("checkbox", name="Newcomer").uncheck()
    page.locator(".models input").first.check()
    page.wait_for_selector(".desk[data-busy=false]")
    # Those of the shipped models come back, without those that nobody shown knows.
    assert list_rows(page)
    assert not set(list_rows(page)) & set(LABELS)


def test_long_names_of_labels_break_within_the_page(newcomer):
    page, _ = newcomer
    for label in set(LABELS) - set(list_rows(page)):
        page.get_by_role("combobox", name="Add a label").fill(label)
        page.keyboard.press("Enter")
    expect(page.locator(".grid .row")).to_have_count(len(LABELS))
    page.wait_for_selector(".desk[data-busy=false]")
    for width in (390, 880):
        page.set_viewport_size({"width": width, "height": 900})
        for row in page.locator(".grid .row").all():
            row.scroll_into_view_if_needed()
            name, bar, cells = (row.locator(part).first.bounding_box() for part in ("h3", ".bar", ".cells"))
            assert name["x"] + name["width"] <= bar["x"]
            assert bar["x"] + bar["width"] <= cells["x"] + cells["width"]
            assert name["y"] + name["height"] <= cells["y"] + 1
        for chip in page.locator(".chip").all():
            assert chip.evaluate("(chip) => chip.scrollWidth <= chip.clientWidth")
            assert chip.evaluate("(chip) => chip.getBoundingClientRect().right <= chip.parentElement.getBoundingClientRect().right + 1")


def test_one_that_goes_is_left_out_and_named(newcomer):
    page, folder = newcomer
    page.locator(".models input").first.check()
    page.wait_for_selector(".desk[data-busy=false]")
    shutil.rmtree(folder)
    upload(page, draw_photograph(), "next.png")
    expect(page.locator(".notice")).to_have_text("No longer on the server: Newcomer.")
    expect(page.locator(".head .column")).to_have_count(2)
    assert page.get_by_role("checkbox", name="Newcomer").count() == 0


def test_a_folder_that_holds_none_is_named(newcomer):
    page, folder = newcomer
    (folder / "card.json").write_text("{")
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".refused")).to_have_text("Cannot be used: newcomer. Results tells why.")
