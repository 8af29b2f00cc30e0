"""The page's own component: one `gr.HTML` whose markup, style and script lie in `browser/`."""

import json
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from l2d.layers import KINDS, SCALES

# In the order of use: all of them run in one scope, the last one starts.
SCRIPTS = ("dom", "draw", "photograph", "labels", "address", "tabs", "fields", "look", "grid", "compare", "asking", "saving", "opening")


class ColourMap(NamedTuple):
    """A colour map that the page offers.

    Attributes:
        name: matplotlib's.
        title: what the page calls it.
        even: paint everywhere alike, as the paper's figures do; else little evidence is little paint.
        signed: for differences, with zero in the middle.
        opacity: what it starts with, in [0, 1].
    """

    name: str
    title: str
    even: bool
    signed: bool
    opacity: float


# The first one is the default.
COLOUR_MAPS = (
    ColourMap("inferno", "Inferno", False, False, 0.85),
    ColourMap("viridis", "Viridis", False, False, 0.85),
    ColourMap("jet", "Jet, as in the paper", True, False, 0.5),
    ColourMap("coolwarm", "Blue to red", False, True, 0.85),
)


def create_grid(functions: list[Callable[..., Any]]) -> gr.HTML:
    """The Compare tab's component; `functions` are what its script may call on the server."""
    return gr.HTML(
        html_template=_read("compare.html"),
        css_template=_read("compare.css"),
        js_on_load="\n".join([*_list_constants(), *(_read(f"{name}.js") for name in SCRIPTS)]),
        apply_default_css=False,
        server_functions=functions,
        elem_id="l2d-compare",
    )


def _list_constants() -> list[str]:
    """What the scripts share with the figures that are saved."""
    constants = {"COLOUR_MAPS": _list_colours(), "KINDS": KINDS, "SCALES": SCALES}
    return [f"const {name} = {json.dumps(value)};" for name, value in constants.items()]


def _list_colours() -> list[dict[str, Any]]:
    return [colour_map._asdict() | {"colours": sample_colours(colour_map.name)} for colour_map in COLOUR_MAPS]


def sample_colours(name: str) -> str:
    """256 colours of one of matplotlib's colour maps, low to high, as hexadecimal "rrggbb" without gaps."""
    # Only the running page needs matplotlib.
    from matplotlib import colormaps

    colours = colormaps[name](np.arange(256), bytes=True)
    return bytes(colours[:, :3].tobytes()).hex()


def _read(file: str) -> str:
    return (resources.files("app.ui") / "browser" / file).read_text(encoding="utf-8")
