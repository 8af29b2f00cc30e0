"""The Results tab's section on single labels: how well each model finds every one of them, and where one is ahead of another."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from html import escape
from typing import Any, NamedTuple, TypeGuard

from app.entries import Entry, find_untaught
from app.ui.strips import COLOURS, Axis, Mark, render_axis, render_strip, render_swatch
from app.ui.tables import SPACE, Group, format_gain, format_score, render_row, render_table

# Rows of a table, an even number; of more labels those in the middle are left out.
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
    """Two students of one network, the second one trained without a teacher, and how far the first one is ahead in each label of both."""

    first: Column
    second: Column
    gains: Mapping[str, float]


def render_labels(entries: Sequence[Entry]) -> Iterator[str]:
    """The section for models of the same data set; nothing where no card holds scores of single labels."""
    scored = [(entry, scores) for entry in entries if (scores := read_labels(entry))]
    shown = scored[: len(COLOURS)]
    if not shown:
        return
    columns = {entry.name: _make_column(entry, colour, scores) for (entry, scores), colour in zip(shown, COLOURS, strict=False)}
    contest = _find_contest([entry for entry, _ in shown], columns)
    labels = _sort([label for label in entries[0].card.labels if any(label in scores for _, scores in shown)], columns, contest)
    yield "<h2>How well is each label found?</h2>"
    yield f"<p>{_introduce(contest)}</p>"
    if len(scored) > len(shown):
        yield f"<p>The first {len(shown)} of {len(scored)} models: no more colours could be told apart.</p>"
    if len(labels) > MOST_LABELS:
        order = "gain" if contest else f"the scores of {_name(next(iter(columns.values())).title)}"
        yield f"<p>The first and the last {MOST_LABELS // 2} of {len(labels):,} labels in the order of {order}.</p>"
    yield _render_legend(list(columns.values()))
    yield _render_table(f"Average precision of every label on {entries[0].data_title}", labels, list(columns.values()), contest)


def read_labels(entry: Entry) -> dict[str, float]:
    """A card's average precision, in percent, of those of its labels that test pictures show."""
    scores = entry.card.scores.get("per_label")
    known = {label: scores.get(label) for label in entry.card.labels} if isinstance(scores, dict) else {}
    return {label: score for label, score in known.items() if _is_percentage(score)}


def _is_percentage(score: Any) -> TypeGuard[float]:
    return isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 100


def _make_column(entry: Entry, colour: str, scores: Mapping[str, float]) -> Column:
    return Column(entry.detail.title, "ring" if entry.card.role == "teacher" else "dot", colour, scores)


def _find_contest(entries: Sequence[Entry], columns: Mapping[str, Column]) -> Contest | None:
    """The best student that was taught against the first one of the same network that was not; None where there are no two such."""
    students = [entry for entry in entries if entry.card.role == "student"]
    alone = {entry.name: base for entry in students if entry.card.method != "vanilla" and (base := find_untaught(entry, students))}
    if not alone:
        return None
    best = max(alone, key=lambda name: _average(columns[name]))
    first, second = columns[best], columns[alone[best].name]
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
    told = f"{about} {_name(contest.first.title)} is above {_name(contest.second.title)} in {len(ahead)} of {_count(gains)}"
    told += f" (gain), most in {_list(ahead)}" * bool(ahead) + f"; it is most below in {_list(behind)}" * bool(behind)
    return f"{told}. The fewer photographs show a label, the more of such a difference is chance."


def _list(gains: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{_name(label)} ({format_gain(gain)})" for label, gain in gains[:NAMED])


def _count(labels: Sized) -> str:
    return f"{len(labels):,} label{'s' * (len(labels) != 1)}"


def _name(text: str) -> str:
    """In a sentence: of whatever script, it leaves the order of the words around it alone."""
    return f"<bdi>{escape(text)}</bdi>"


def _render_legend(columns: Sequence[Column]) -> str:
    """For screens on which the columns' heads are out of sight. They are read aloud, so this need not be."""
    names = " ".join(f"<span>{render_swatch(column.mark())}{_name(column.title)}</span>" for column in columns)
    return f'<p class="legend" aria-hidden="true">{names}</p>'


def _render_table(title: str, labels: Sequence[str], columns: Sequence[Column], contest: Contest | None) -> str:
    heads = [f"<span>{escape(column.title)}</span>{render_swatch(column.mark())}" for column in columns]
    group = Group("Average precision", [render_axis(AXIS, "Average precision"), *heads, *["gain"] * bool(contest)])
    half = MOST_LABELS // 2
    left_out = labels[half:-half] if len(labels) > MOST_LABELS else []
    gap = [f'<tr class="gap"><td colspan="{2 + len(group.names)}">{_count(left_out)} left out here</td></tr>'] * bool(left_out)
    above, below = (labels[:half], labels[-half:]) if left_out else (labels, [])
    rows = [[_render_label(label, columns, contest) for label in part] for part in (above, below)]
    return render_table(title, [group], [*rows[0], *gap, *rows[1]], first="Label", tall=True)


def _render_label(label: str, columns: Sequence[Column], contest: Contest | None) -> str:
    marks = [column.mark(column.scores[label]) for column in columns if label in column.scores]
    numbers = "".join(f"<td>{format_score(column.scores.get(label))}</td>" for column in columns)
    gain = f"<td><small>{format_gain(contest.gains.get(label))}</small></td>" if contest else ""
    return render_row(label, f"{SPACE}{render_strip(AXIS, marks)}{numbers}{gain}", ours=False)
