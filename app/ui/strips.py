"""Numbers as marks on a common axis, a strip per row of a table.

The numbers themselves stand in the row, too: whoever hears the page misses nothing, and marks are not read aloud.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

# Of models, in their order; more than these are not told apart. All stand out from white and from black, and from each other also for those
# who do not see red, green or blue.
COLOURS = ("#91915e", "#d97706", "#ad2da4", "#0d9488", "#c12321", "#8a83f6")
# What was measured here, where there is one thing alone.
OURS = COLOURS[3]
# Steps of an axis, as shares of a power of ten.
STEPS = (1, 2, 5)
FEWEST_STEPS = 4
# The last place of numbers that are shown: what differs by less, as sums in another order do, is equal.
LEAST_STEP = 0.1


class Mark(NamedTuple):
    """One number on a strip.

    Attributes:
        kind: its class in results.css: dot, or ring and diamond, which are hollow.
        colour: as CSS writes it.
        spread: half the length of the bar through it.
    """

    value: float
    kind: str = "dot"
    colour: str = "currentColor"
    spread: float = 0.0


class Axis(NamedTuple):
    """From where to where the strips of a table reach, and the one value that a line marks."""

    low: float
    high: float
    line: float

    @classmethod
    def around(cls, values: Iterable[float], line: float = 0.0) -> "Axis":
        """The smallest axis with round ends that shows all values and the line."""
        known = [line, *values]
        low, high = min(known), max(known)
        step = choose_step((high - low) / FEWEST_STEPS)
        return cls(step * math.floor(low / step), step * max(math.ceil(high / step), math.floor(low / step) + 1), line)

    def place(self, value: float) -> float:
        """In percent of the strip's width."""
        return 100 * min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def choose_step(least: float) -> float:
    """The smallest round number that is not below this one: 1, 2 or 5 times a power of ten, from 0.1 up; 1 for nothing."""
    if least <= 0:
        return 1.0
    least = max(least, LEAST_STEP)
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (*STEPS, 10) if step * power >= least * (1 - 1e-9))


def render_strip(axis: Axis, marks: Sequence[Mark]) -> str:
    """A table's cell; marks that come later lie above."""
    drawn = "".join(_draw_bar(axis, mark) for mark in marks if mark.spread) + "".join(_draw(axis, mark) for mark in marks)
    # Hidden is what the cell holds: without the cell, those after it would be read out under the heads of others.
    return f'<td class="strip"><div aria-hidden="true" style="--line:{axis.place(axis.line):.2f}%">{drawn}</div></td>'


def render_axis(axis: Axis, title: str = "") -> str:
    """What stands above the strips: both ends, and the line's value where there is room for it between them."""
    values = [axis.low, axis.high] + [axis.line] * (10 < axis.place(axis.line) < 90)
    ticks = "".join(f'<span style="left:{axis.place(value):.2f}%">{value:g}</span>'.replace(">-", ">−") for value in values)
    return f'<th class="strip" scope="col" aria-label="{escape(title)}"><div>{ticks}</div></th>'


def render_swatch(mark: Mark) -> str:
    """A mark by itself, for a legend."""
    return f'<i class="swatch {mark.kind}" style="color:{mark.colour}" aria-hidden="true"></i>'


def _draw(axis: Axis, mark: Mark) -> str:
    return f'<i class="{mark.kind}" style="left:{axis.place(mark.value):.2f}%;color:{mark.colour}"></i>'


def _draw_bar(axis: Axis, mark: Mark) -> str:
    left, right = axis.place(mark.value - mark.spread), axis.place(mark.value + mark.spread)
    return f'<b style="left:{left:.2f}%;width:{right - left:.2f}%;color:{mark.colour}"></b>'
