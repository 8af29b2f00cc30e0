from importlib import resources

import pytest

from app.ui.grid import COLOUR_MAPS, SCRIPTS, create_grid, sample_colours

BROWSER = resources.files("app.ui") / "browser"


def test_colours_are_those_of_matplotlib():
    # First and last colours as in matplotlib's tables of viridis.
    assert (sample_colours("viridis")[:6], sample_colours("viridis")[-6:]) == ("440154", "fde724")
    assert {len(sample_colours(colour_map.name)) for colour_map in COLOUR_MAPS} == {256 * 6}


def test_the_default_colour_map_is_for_evidence_and_exactly_one_is_for_differences():
    assert not COLOUR_MAPS[0].signed
    assert not COLOUR_MAPS[0].even
    assert [colour_map.signed for colour_map in COLOUR_MAPS].count(True) == 1


def test_every_script_of_the_folder_is_used():
    assert {file.stem for file in BROWSER.iterdir() if file.suffix == ".js"} == set(SCRIPTS)


@pytest.mark.parametrize("file", ["compare.html", "compare.css"])
def test_nothing_in_the_templates_is_taken_for_a_placeholder(file):
    # Gradio reads both as Handlebars templates and then as JavaScript template literals.
    text = (BROWSER / file).read_text(encoding="utf-8")
    assert [mark for mark in ("{{", "${", "`", "\\") if mark in text] == []


def test_nothing_is_written_as_html_by_a_script():
    for script in SCRIPTS:
        text = (BROWSER / f"{script}.js").read_text(encoding="utf-8")
        assert [word for word in ("innerHTML", "insertAdjacentHTML", "document.write", "http://", "https://") if word in text] == []


def test_the_script_can_call_only_what_it_is_given():
    def compare(sent: object) -> dict[str, str]:
        return {}

    assert create_grid([compare]).server_fns == [compare]
