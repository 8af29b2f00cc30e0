import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ui.strips import Axis, Mark, choose_step, render_axis, render_strip

VALUES = st.lists(st.floats(-1e6, 1e6), max_size=8)


@given(VALUES, st.floats(-1e3, 1e3))
def test_an_axis_holds_every_value_and_the_line(values: list[float], line: float) -> None:
    axis = Axis.around(values, line)
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in (line, *values))
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 100 for place in places)


@pytest.mark.parametrize(
    ("values", "ends"), [([-0.25, 1.75], (-0.5, 2)), ([0.3], (0, 0.3)), ([], (0, 1)), ([0.0], (0, 1)), ([-3.1, -1], (-4, 0))]
)
def test_its_ends_are_round(values: list[float], ends: tuple[float, float]) -> None:
    assert Axis.around(values)[:2] == pytest.approx(ends)


@given(st.floats(1e-6, 1e6))
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
    # The numbers stand in the row already.
    assert 'aria-hidden="true"' in strip


def test_the_head_names_the_ends_and_the_line_where_it_has_room() -> None:
    assert re.findall(">(−?[\\d.]+)</span>", render_axis(Axis(-2.0, 2.0, 0.0))) == ["−2", "2", "0"]
    assert re.findall(">(−?[\\d.]+)</span>", render_axis(Axis(0.0, 2.0, 0.0))) == ["0", "2"]
