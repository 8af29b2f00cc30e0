"""The Results tab's section on single labels: how well each model finds every one of them, and where one is ahead of another."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from app.entries import Entry
from app.ui.strips import COLOURS, Axis, Mark, render_axis, render_strip, render_swatch
from app.ui.tables import SPACE, Group, format_gain, format_score, render_row, render_table

# Rows of a table; of more labels those in the middle are left out.
MOST_LABELS = 200
# Labels that a sentence names on either side.
NAMED = 3
AXIS = Axis(0.0, 100.0, 50.0)


class Column(NamedTuple):
    """A model with the average precision of its labels, in percent."""

    title: str
    kind: str
    colour: str
    scores: Mapping[str, float]

    def mark(self, value: float = 0.0) -> Mark:
        """A number of this model's."""
        return Mark(value, self.kind, self.colour)


class Contest(NamedTuple):
    """Two students, the second one trained without a teacher, and how far the first one is ahead in each label that both were scored on."""

    first: Column
    second: Column
    gains: Mapping[str, float]


def render_labels(entries: Sequence[Entry]) -> Iterator[str]:
    """The section for models of the same data set; nothing where no card holds scores of single labels."""
    scored = [(entry, scores) for entry in entries if (scores := read_labels(entry))][: len(COLOURS)]
    if not scored:
        return
    columns = {entry.name: _make_column(entry, colour, scores) for (entry, scores), colour in zip(scored, COLOURS, strict=False)}
    contest = _find_contest([entry for entry, _ in scored], columns)
    labels = _sort([label for label in entries[0].card.labels if any(label in scores for _, scores in scored)], columns, contest)
    yield "<h2>Which labels does it find?</h2>"
    yield f"<p>{_introduce(contest)}</p>"
    if len(labels) > MOST_LABELS:
        half = MOST_LABELS // 2
        yield f"<p>The first and the last {half} of {len(labels):,} labels.</p>"
        labels = labels[:half] + labels[-half:]
    yield _render_table(f"Average precision of every label on {entries[0].data_title}", labels, list(columns.values()), contest)


def read_labels(entry: Entry) -> dict[str, float]:
    """A card's average precision of every label that test pictures show."""
    scores = entry.card.scores.get("per_label")
    if not isinstance(scores, dict):
        return {}
    return {name: float(score) for name, score in scores.items() if isinstance(score, int | float) and math.isfinite(score)}


def _make_column(entry: Entry, colour: str, scores: Mapping[str, float]) -> Column:
    return Column(entry.detail.title, "ring" if entry.card.role == "teacher" else "dot", colour, scores)


def _find_contest(entries: Sequence[Entry], columns: Mapping[str, Column]) -> Contest | None:
    """The best of the taught students against the first one that was not; None where one of them is missing."""
    students = [entry for entry in entries if entry.card.role == "student"]
    alone = [entry for entry in students if entry.card.method == "vanilla"]
    taught = [entry for entry in students if entry.card.method != "vanilla"]
    if not (alone and taught):
        return None
    first = columns[max(taught, key=lambda entry: _average(columns[entry.name])).name]
    second = columns[alone[0].name]
    return Contest(first, second, {label: score - second.scores[label] for label, score in first.scores.items() if label in second.scores})


def _average(column: Column) -> float:
    return sum(column.scores.values()) / len(column.scores)


def _sort(labels: Sequence[str], columns: Mapping[str, Column], contest: Contest | None) -> list[str]:
    """Those first in which the contest's first is furthest ahead; without a contest those that the first model finds best."""
    order = contest.gains if contest else next(iter(columns.values())).scores
    return sorted(labels, key=lambda label: order.get(label, float("-inf")), reverse=True)


def _introduce(contest: Contest | None) -> str:
    about = "Average precision of single labels in percent."
    if contest is None or not contest.gains:
        return about
    gains = sorted(contest.gains.items(), key=lambda item: item[1], reverse=True)
    ahead, behind = [item for item in gains if item[1] > 0], [item for item in reversed(gains) if item[1] < 0]
    told = f"{about} {escape(contest.first.title)} is above {escape(contest.second.title)} in {len(ahead)} of {len(gains)} labels"
    told += f" (gain), most in {_list(ahead)}" * bool(ahead) + f"; it is most below in {_list(behind)}" * bool(behind)
    return f"{told}. The fewer photographs show a label, the more of such a difference is chance."


def _list(gains: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{escape(label)} ({format_gain(gain)})" for label, gain in gains[:NAMED])


def _render_table(title: str, labels: Sequence[str], columns: Sequence[Column], contest: Contest | None) -> str:
    heads = [f"{render_swatch(column.mark())}{escape(column.title)}" for column in columns]
    group = Group("Average precision", [render_axis(AXIS, "Average precision"), *heads, *["gain"] * bool(contest)])
    return render_table(title, [group], [_render_label(label, columns, contest) for label in labels], first="Label", tall=True)


def _render_label(label: str, columns: Sequence[Column], contest: Contest | None) -> str:
    marks = [column.mark(column.scores[label]) for column in columns if label in column.scores]
    numbers = "".join(f"<td>{format_score(column.scores.get(label))}</td>" for column in columns)
    gain = f"<td><small>{format_gain(contest.gains.get(label))}</small></td>" if contest else ""
    return render_row(label, f"{SPACE}{render_strip(AXIS, marks)}{numbers}{gain}", ours=False)
