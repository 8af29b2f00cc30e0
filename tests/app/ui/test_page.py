import asyncio
import json
import re

import pytest

from app.access import Access
from app.places import Places
from app.ui.page import build_page, look
from app.workshop import Workshop


@pytest.fixture
def page(engine, tmp_path):
    workshop = Workshop(Places(tmp_path, tmp_path, tmp_path), engine.catalog)

    async def build():
        return build_page(engine, workshop, Access(None))

    # Within a loop: without a running one Gradio makes its own and never closes it.
    return asyncio.run(build())


def test_the_page_has_its_tabs_and_asks_nobody_else_for_anything(page):
    page.css = look()["css"]
    config = json.dumps(page.get_config_file(), default=str)
    assert all(f'"{title}"' in config for title in ("Compare", "Results", "Distil"))
    assert set(re.findall(r"https?://[\w.]+", config)) <= {"http://www.w3.org"}
    assert not page.analytics_enabled


def test_jobs_are_looked_at_while_their_tab_is_in_front_alone(page):
    config = page.get_config_file()
    (timer,) = [part for part in config["components"] if part["type"] == "timer"]
    assert not timer["props"]["active"]
    tabs = {part["id"]: part["props"]["label"] for part in config["components"] if part["type"] == "tabitem"}
    told = [event for event in config["dependencies"] if event["outputs"] == [timer["id"]]]
    active = {tabs[place]: "active: true" in event["js"] for event in told for place, _ in event["targets"]}
    assert active == {"Compare": False, "Results": False, "Distil": True}


def test_the_fonts_that_are_fetched_at_once_are_those_of_the_theme():
    chosen = look()
    fonts, fetched = (set(re.findall(r"static/fonts/[\w/-]+\.woff2", text)) for text in (chosen["theme"]._get_theme_css(), chosen["head"]))
    assert fetched == fonts != set()


def test_the_look_is_made_of_what_gradio_itself_serves():
    chosen = look()
    sheets = chosen["theme"]._get_theme_css() + chosen["css"] + chosen["head"] + "".join(chosen["theme"]._stylesheets)
    assert set(re.findall(r"https?://[\w.]+", sheets)) <= {"http://www.w3.org"}
