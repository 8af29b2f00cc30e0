"""Tables of scores as HTML: the Results tab's cells, groups of columns and numbers. Everything that comes from a file is escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from l2d.published import MEASURES

Scores = Mapping[str, float]
# Of files: a mark for any other number would stand where it is not.
Percentage = Annotated[float, Field(ge=0, le=100)]

# Of methods: `render_group` fills them.
COLUMNS = (MEASURES[0], "gain", *MEASURES[1:])
SPACE = '<td class="space"></td>'


class Group(NamedTuple):
    """Columns that belong together.

    Attributes:
        names: what their heads say, as HTML; one that starts with <th is taken as it is.
        note: behind the title, as HTML.
    """

    title: str
    names: Sequence[str] = COLUMNS
    note: str = ""


def render_unreadable(path: Path, error: OSError | ValidationError) -> str:
    """A section in the place of a file that cannot be shown."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
    else:
        reason = error.strerror or "it cannot be read"
    return (
        f"<h2>{escape(path.name)}</h2><p>This file cannot be shown: {escape(reason)}. "
        "Have it written anew, or take it out of the folder of checkpoints.</p>"
    )


def render_table(title: str, groups: Sequence[Group], rows: Sequence[str], first: str = "Model or method", tall: bool = False) -> str:
    """A table with a name in the first column, and groups of columns after it.

    Args:
        tall: it has more rows than a page, and scrolls by itself.
    """
    top = "".join(
        f'{SPACE}<th class="group" scope="colgroup" colspan="{len(group.names)}">{escape(group.title)}{group.note}</th>' for group in groups
    )
    heads = "".join(SPACE + "".join(map(_render_head, group.names)) for group in groups)
    head = f'<tr><td></td>{top}</tr><tr><th scope="col">{first}</th>{heads}</tr>'
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    # It scrolls by itself where it is too wide: a focusable region does so by keyboard too.
    return f'<div class="scroll{" tall" * tall}" tabindex="0" role="region" aria-label="{escape(title)}">{table}</div>'


def _render_head(name: str) -> str:
    return name if name.startswith("<th") else f'<th scope="col">{name}</th>'


def render_row(title: str, cells: str, ours: bool) -> str:
    """One method's row; those that were measured here stand out from those that only the paper reports."""
    return f'<tr class="{"ours" if ours else "paper"}"><th scope="row">{escape(title)}</th>{cells}</tr>'


def render_group(scores: Scores, gain: float | None, best: Scores, spread: Scores | None = None) -> str:
    """One method's cells below one group of `render_table`."""
    cells = [render_cell(scores, best, measure, spread) for measure in MEASURES]
    cells.insert(1, f"<td><small>{format_gain(gain)}</small></td>")
    return f"{SPACE}{''.join(cells)}"


def render_cell(scores: Scores, best: Scores, measure: str, spread: Scores | None = None) -> str:
    """One score, with its standard deviation where it has one; bold where it is the best by more than that."""
    mark = ' class="best"' if measure in best and scores.get(measure) == best[measure] else ""
    beside = f" <small>± {spread[measure]:.1f}</small>" if spread and measure in spread else ""
    return f"<td{mark}>{format_score(scores.get(measure))}{beside}</td>"


def find_best(scores: Sequence[Scores], spreads: Sequence[Scores]) -> dict[str, float]:
    """The highest of every measure that leads the next one by more than the spread of either: without spreads nobody knows."""
    best = {}
    for name in {name for each in spreads for name in each}:
        known = [(each[name], spread[name]) for each, spread in zip(scores, spreads, strict=True) if name in each and name in spread]
        if len(known) < 2:
            continue
        (first, first_spread), (second, second_spread) = sorted(known, reverse=True)[:2]
        if first - second > max(first_spread, second_spread):
            best[name] = first
    return best


def find_gain(key: str, scores: Scores, base: Scores) -> float | None:
    """mAP above the vanilla student's; None for the teacher, the vanilla student itself, and what was not measured."""
    if key in ("teacher", "vanilla") or "mAP" not in scores or "mAP" not in base:
        return None
    return scores["mAP"] - base["mAP"]


def format_gain(gain: float | None) -> str:
    """A gain with its sign; zero has none."""
    if gain is None:
        return ""
    return f"{gain:+.1f}".replace("-", "−") if round(gain, 1) else "0.0"


def format_score(value: Any) -> str:
    """A percentage with one decimal, or a dash."""
    return f"{value:.1f}" if isinstance(value, int | float) else "–"
