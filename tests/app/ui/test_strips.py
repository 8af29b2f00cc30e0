import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.ui.strips import COLOURS, Axis, Mark, choose_step, render_axis, render_strip

# How people without one kind of cone see colours: Machado et al. 2009, for linear RGB.
SIGHTS = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
VALUES = st.lists(st.floats(-1e6, 1e6), max_size=8)


# However busy the machine is.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, st.floats(-1e3, 1e3))
def test_an_axis_holds_every_value_and_the_line(values: list[float], line: float) -> None:
    axis = Axis.around(values, line)
    assert axis.low < axis.high
    # But for the last digits of sums.
    assert all(axis.low - 1e-6 <= value <= axis.high + 1e-6 for value in (line, *values))
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize(
    ("values", "ends"),
    [([-0.25, 1.75], (-0.5, 2)), ([0.3], (0, 0.3)), ([], (0, 1)), ([0.0], (0, 1)), ([-3.1, -1], (-4, 0)), ([1e-15], (0, 0.1))],
)
def test_its_ends_are_round(values: list[float], ends: tuple[float, float]) -> None:
    assert Axis.around(values)[:2] == pytest.approx(ends)


@given(st.floats(0.1, 1e6))
def test_a_step_is_one_two_or_five_times_a_power_of_ten(least: float) -> None:
    step = choose_step(least)
    assert least * (1 - 1e-9) <= step <= 2.5 * least
    assert re.match("[125]0*e", f"{step:e}".replace(".", "").replace("0e", "e"))


def test_marks_stand_where_their_numbers_are() -> None:
    axis = Axis(-1.0, 3.0, 0.0)
    strip = render_strip(axis, [Mark(0.0, "diamond"), Mark(2.0, colour="red", spread=0.5), Mark(9.0)])
    assert re.findall(r'<i class="(\w+)" style="left:([\d.]+)%', strip) == [("diamond", "25.00"), ("dot", "75.00"), ("dot", "100.00")]
    assert '<b style="left:62.50%;width:25.00%;color:red">' in strip
    assert "--line:25.00%" in strip
    # The numbers stand in the row already; what comes after stays below its own head.
    assert strip.startswith('<td class="strip"><div aria-hidden="true"')


def test_the_head_names_the_ends_and_the_line_where_it_has_room() -> None:
    assert re.findall(">(−?[\\d.]+)</span>", render_axis(Axis(-2.0, 2.0, 0.0))) == ["−2", "2", "0"]
    assert re.findall(">(−?[\\d.]+)</span>", render_axis(Axis(0.0, 2.0, 0.0))) == ["0", "2"]


def to_linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def to_lab(linear: np.ndarray) -> np.ndarray:
    share = XYZ @ linear.clip(0, 1) / XYZ.sum(axis=1)
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_stand_out_from_white_and_black_and_are_told_apart_by_everybody() -> None:
    colours = [to_linear(colour) for colour in COLOURS]
    # 3:1 on white, and on the page's black.
    assert all(0.053 * 3 <= (XYZ @ colour)[1] + 0.05 <= 1.05 / 3 for colour in colours)
    for sight in SIGHTS:
        seen = [to_lab(np.array(sight) @ colour) for colour in colours]
        assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 20
