"""The Results tab: what was measured, beside what the paper reports. Built from the checkpoints' folder whenever the page is opened."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr

from app.engine import Engine
from app.entries import Entry, find_untaught, name_data
from app.ui.evidence import render_evidence
from app.ui.per_label import render_labels
from app.ui.sweeps import render_sweeps
from app.ui.tables import SPACE, Group, Scores, find_gain, format_score, render_cell, render_group, render_row, render_table
from l2d.distill import TITLES
from l2d.published import MEASURES, read_recipes, read_reference

# The paper's table of pairs with different architectures, as ours are, and its smallest student.
NEAREST_TABLE, SMALLEST = 4, "MobileNet v2"
LOCALIZATION_SCORES = {"pointing_game": "Pointing game", "energy_in_box": "Energy in box"}
SIZES = ("small", "medium", "large")
# Method, title and scores of a row.
Row = tuple[str, str, dict[str, float]]

PROTOCOL = """
<p>All numbers are percentages; higher is better. <b>mAP</b> is the mean over labels of the average precision. <b>OF1</b> is the F1 score
over all decisions, <b>CF1</b> the mean of the labels' own. Both predict as many labels per photograph as it truly has. The paper's code
does so, too, so they can be compared with its tables. At a threshold of 0.5 both are mostly lower.</p>
"""
LOCALIZATION = """
<p>Over all pairs of a test photograph and a label present in it, predicted or not. <b>Pointing game</b>: how often the strongest
point of the map lies inside a box of that label. <b>Energy in box</b>: the share of the map's evidence that lies inside its boxes.
Small, medium, large: by width x height of the label's largest box in pixels of the photograph at hand, with 32 x 32 and 96 x 96 as the
lines between them; COCO's own bins of these names go by the area of masks at COCO's resolution.</p>
"""
CHANCE = """
<p>Each of these networks was trained once, so a difference of a point may be chance, here and in the maps below; <code>l2d evaluate</code>
and <code>l2d localize</code> give intervals with <code>--against</code>.</p>
"""


def build_results(engine: Engine) -> None:
    """Put the Results tab into the page that is being built."""
    catalog, folder = engine.catalog, engine.settings.checkpoints
    gr.HTML(lambda: render_results(catalog.entries(), catalog.refused(), folder), apply_default_css=False)


def render_results(entries: Sequence[Entry], refused: dict[str, str], folder: Path) -> str:
    """The tables as HTML: of the cards, then of the series in `folder`. Everything that comes from a file is escaped."""
    parts = list(_tell_once(part for group in _group_by_data(entries) for part in _render_data(group)))
    if not entries:
        parts = ["<h2>No model yet</h2><p>The folder of checkpoints holds none that can be used.</p>"]
    parts += [*render_evidence(folder), *render_sweeps(folder)]
    if refused:
        items = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in sorted(refused.items()))
        parts.append(f"<h2>Checkpoints that cannot be used</h2><ul>{items}</ul>")
    return f'<style>{_read_style()}</style><div class="l2d-results">{"".join(parts)}</div>'


def _tell_once(parts: Iterable[str]) -> Iterator[str]:
    """Leave out, after the first time, what is true of every data set."""
    general, told = {PROTOCOL, LOCALIZATION, CHANCE, _explain_gain()}, set()
    for part in parts:
        if part not in told:
            yield part
        if part in general:
            told.add(part)


@cache
def _explain_gain() -> str:
    return (
        "<p>Gain: mAP above the vanilla student of the same network in the same column. The paper's pairs, data and recipe "
        "differ from ours, so compare the order and the gains of the methods, not the numbers themselves. "
        f"{escape(read_reference()['source'])}.</p>"
    )


@cache
def _read_style() -> str:
    return (resources.files("app.ui") / "browser" / "results.css").read_text(encoding="utf-8")


def find_nearest(backbones: Iterable[str]) -> list[dict[str, Any]]:
    """The paper's rows, of different architectures, for these students; for its smallest one if there are none."""
    rows = [row for row in read_reference()["rows"] if row["table"] == NEAREST_TABLE]
    known, ours = read_recipes()["backbones"], {name.partition(".")[0] for name in backbones}
    nearest = [row for row in rows if known[row["student"]] in ours]
    return nearest or [row for row in rows if row["student"] == SMALLEST]


def read_scores(scores: dict[str, Any]) -> dict[str, float]:
    """mAP, OF1, CF1 and the localization scores of a card, those that are there."""
    places = (scores, scores.get("oracle_k"), scores.get("localization"))
    names = (*MEASURES, *LOCALIZATION_SCORES)
    found = ((name, place[name]) for place in places if isinstance(place, dict) for name in names if name in place)
    return {name: float(value) for name, value in found if isinstance(value, int | float) and not isinstance(value, bool)}


def _group_by_data(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Models that share a table. Data sets of other labels are others, though they are called the same."""
    groups: dict[tuple[str, tuple[str, ...]], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.data_title, entry.card.labels), []).append(entry)
    return list(groups.values())


def _render_data(entries: list[Entry]) -> Iterator[str]:
    photographs = sorted({count for entry in entries if isinstance(count := entry.card.scores.get("images"), int)})
    counts = " and ".join(f"{count:,}" for count in photographs)
    measured = f" on {counts} test photograph{'s' * (photographs != [1])}" if photographs else ""
    scored = photographs or any(read_scores(entry.card.scores) for entry in entries)
    title, count = escape(entries[0].data_title), len(entries[0].card.labels)
    models = "These models" if len(entries) > 1 else "This model"
    about = f"{models}, {count} label{'s' * (count > 1)}, {f'scored{measured}' if scored else 'not scored yet'}"
    if not scored:
        # A table would hold the paper's numbers alone.
        yield f"<h2>Trained on {title}</h2><p>{about}: {', '.join(escape(entry.detail.title) for entry in entries)}.</p>"
        return
    yield f"<h2>Measured on {title}</h2><p>{about}.</p>"
    yield PROTOCOL
    yield from _render_methods(entries)
    if located := _render_localization(entries):
        yield "<h2>Do the maps lie on the objects?</h2>"
        yield LOCALIZATION
        yield located
    yield from render_labels(entries)


def _render_methods(entries: list[Entry]) -> Iterator[str]:
    papers = find_nearest(entry.card.backbone for entry in entries if entry.card.role == "student")
    ours = [(_key(entry), entry.detail.title, read_scores(entry.card.scores)) for entry in entries]
    reported = {key for paper in papers for key in paper["scores"]} - {key for key, _, _ in ours}
    absent: list[Row] = [(key, title, {}) for key, title in TITLES.items() if key in reported]
    groups = [Group("Here"), *(Group(f"Paper: {row['teacher']} to {row['student']}, {row['data']}") for row in papers)]
    # What another network is above it says nothing of methods.
    bases = [find_untaught(entry, entries) for entry in entries]
    rows = [_render_method(row, papers, read_scores(base.card.scores) if base else {}) for row, base in zip(ours, bases, strict=True)]
    rows += [_render_method(row, papers, {}) for row in absent]
    yield render_table(f"Scores on {entries[0].data_title}", groups, rows)
    yield _explain_gain()
    yield CHANCE
    yield _render_past(entries)


def _render_past(entries: list[Entry]) -> str:
    """How good networks were after each training on the same data: for some the last one may have been one too many."""
    rounds = [(entry.detail.title, [format_score(score) for score in _find_rounds(entry)]) for entry in entries]
    listed = "; ".join(f"{escape(title)} {', '.join(scores)}" for title, scores in rounds if len(scores) > 1)
    return f"<p>mAP after each training of a network that went on from an earlier one: {listed}.</p>" if listed else ""


def _find_rounds(entry: Entry) -> list[float]:
    """Every mAP on record of a network and of those that its training went on from, on the same data, the first one first."""
    found, record = [], {"mAP": entry.card.scores.get("mAP"), "data": entry.card.data, "lineage": entry.card.lineage}
    while isinstance(record, dict):
        score = read_scores(record).get("mAP")
        if score is not None and name_data(record.get("data")) == entry.data_title:
            found.append(score)
        record = _dig(record, "lineage", "before")
    return found[::-1]


def _render_method(row: Row, papers: list[dict[str, Any]], base: Scores) -> str:
    key, title, scores = row
    cells = render_group(scores, find_gain(key, scores, base), {})
    for paper in papers:
        reported = paper["scores"].get(key, {})
        cells += render_group(reported, find_gain(key, reported, paper["scores"]["vanilla"]), {})
    return render_row(title, cells, ours=bool(scores))


def _render_localization(entries: list[Entry]) -> str:
    reports = [(entry, entry.card.scores["localization"]) for entry in entries if isinstance(entry.card.scores.get("localization"), dict)]
    if not reports:
        return ""
    sizes = [size for size in SIZES if any(_dig(report, "by_size", size) for _, report in reports)]
    title, groups = f"Localization on {entries[0].data_title}", [Group(name, ("all", *sizes)) for name in LOCALIZATION_SCORES.values()]
    rows = [_render_located(entry, report, sizes) for entry, report in reports]
    table = render_table(title, groups, rows, first="Model")
    return f"<p>{_count_pairs(report for _, report in reports)}</p>{table}"


def _render_located(entry: Entry, report: dict[str, Any], sizes: list[str]) -> str:
    scores, cells = read_scores({"localization": report}), ""
    for name in LOCALIZATION_SCORES:
        parts = "".join(f"<td>{format_score(_dig(report, 'by_size', size, name))}</td>" for size in sizes)
        cells += f"{SPACE}{render_cell(scores, {}, name)}{parts}"
    return render_row(entry.detail.title, cells, ours=True)


def _count_pairs(reports: Iterable[dict[str, Any]]) -> str:
    counts = sorted({pairs for report in reports if isinstance(pairs := report.get("pairs"), int)})
    return f"{' or '.join(f'{count:,}' for count in counts)} pair{'s' * (counts != [1])} for every model." if counts else ""


def _key(entry: Entry) -> str:
    return "teacher" if entry.card.role == "teacher" else entry.card.method


def _dig(report: Any, *path: str) -> Any:
    for name in path:
        report = report.get(name) if isinstance(report, dict) else None
    return report
