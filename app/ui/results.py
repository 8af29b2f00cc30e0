"""The Results tab: what was measured, beside what the paper reports. Built from the cards whenever the page is opened."""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib import resources
from typing import Any

import gradio as gr

from app.catalog import Catalog, Entry
from app.engine import Engine
from app.settings import Settings

# The paper's name of a student's backbone: finds the rows of its table that are nearest to ours.
PAPER_NAMES = {
    "mobilenetv2_100": "MobileNet v2",
    "repvgg_a0": "RepVGG-A0",
    "resnet18": "ResNet-18",
}
# Its table of pairs with different architectures, as ours are.
NEAREST_TABLE = 4
METHOD_TITLES = {
    "teacher": "Teacher",
    "vanilla": "Vanilla student",
    "rkd": "RKD",
    "pkt": "PKT",
    "reviewkd": "ReviewKD",
    "mse": "MSE",
    "ps": "PS",
    "mld": "MLD",
    "l2d": "L2D",
}
MEASURES = ("mAP", "OF1", "CF1")
LOCALIZATION_SCORES = {"pointing_game": "Pointing game", "energy_in_box": "Energy in box"}
SIZES = ("small", "medium", "large")

PROTOCOL = """
<p>All numbers are percentages; higher is better. <b>mAP</b> is the mean over labels of the average precision. <b>OF1</b> and <b>CF1</b> are
F1 scores over all decisions and averaged over labels, with as many predicted labels per photograph as it truly has: what the paper's code
does, so they can be compared with its tables, and higher than a threshold would give.</p>
"""
LOCALIZATION = """
<p>Over all pairs of a test photograph and a label present in it, predicted or not. <b>Pointing game</b>: how often the strongest
point of the map lies inside a box of that label. <b>Energy in box</b>: the share of the map's evidence that lies inside its boxes.</p>
"""

Scores = dict[str, float]


def build_results(catalog: Catalog, engine: Engine, settings: Settings) -> None:
    """Put the Results tab into the page that is being built."""
    gr.HTML(lambda: render_results(catalog.entries(), catalog.refused()), apply_default_css=False)


def render_results(entries: Sequence[Entry], refused: dict[str, str]) -> str:
    """The tables as HTML. Everything that comes from a card is escaped."""
    parts = [_render_data(name, group) for name, group in _group_by_data(entries).items()]
    if not entries:
        parts = ["<h2>No model yet</h2><p>The folder of checkpoints holds none that can be used.</p>"]
    if refused:
        items = "".join(f"<li><b>{escape(name)}</b>: {escape(reason)}</li>" for name, reason in sorted(refused.items()))
        parts.append(f"<h2>Checkpoints that cannot be used</h2><ul>{items}</ul>")
    return f'<style>{_read_style()}</style><div class="l2d-results">{"".join(parts)}</div>'


@cache
def read_reference() -> dict[str, Any]:
    """The scores that the paper reports, in percent: table, data, teacher, student, method -> mAP, OF1, CF1."""
    content: dict[str, Any] = json.loads((resources.files("l2d") / "reference.json").read_text(encoding="utf-8"))
    return content


@cache
def _read_style() -> str:
    return (resources.files("app.ui") / "browser" / "results.css").read_text(encoding="utf-8")


def find_nearest(backbones: Iterable[str]) -> list[dict[str, Any]]:
    """The paper's rows, of different architectures, for these students; for MobileNet v2, its smallest one, if there are none."""
    rows = [row for row in read_reference()["rows"] if row["table"] == NEAREST_TABLE]
    names = {PAPER_NAMES[backbone] for backbone in backbones if backbone in PAPER_NAMES} or {"MobileNet v2"}
    return [row for row in rows if row["student"] in names]


def read_scores(scores: dict[str, Any]) -> Scores:
    """mAP, OF1, CF1 and the localization scores of a card, those that are there."""
    places = (scores, scores.get("oracle_k"), scores.get("localization"))
    names = (*MEASURES, *LOCALIZATION_SCORES)
    found = ((name, place[name]) for place in places if isinstance(place, dict) for name in names if name in place)
    return {name: float(value) for name, value in found if isinstance(value, int | float) and not isinstance(value, bool)}


def _group_by_data(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_name_data(entry), []).append(entry)
    return groups


def _name_data(entry: Entry) -> str:
    data = entry.card.data
    return next((str(data[key]) for key in ("title", "name", "spec", "data", "train") if data.get(key)), "unnamed data")


def _render_data(name: str, entries: list[Entry]) -> str:
    photographs = sorted({count for entry in entries if isinstance(count := entry.card.scores.get("images"), int)})
    measured = f" on {' and '.join(f'{count:,}' for count in photographs)} test photographs" if photographs else ""
    parts = [f"<h2>Measured on {escape(name)}</h2><p>These models, {len(entries[0].card.labels)} labels, scored{measured}.</p>{PROTOCOL}"]
    parts.append(_render_methods(entries))
    if located := _render_localization(entries):
        parts.append(f"<h2>Do the maps lie on the objects?</h2>{LOCALIZATION}{located}")
    return "".join(parts)


def _render_methods(entries: list[Entry]) -> str:
    papers = find_nearest(entry.card.backbone for entry in entries if entry.card.role == "student")
    ours = [(_key(entry), entry.card.title, read_scores(entry.card.scores)) for entry in entries]
    absent = [(key, METHOD_TITLES[key], Scores()) for key in METHOD_TITLES if key not in {key for key, _, _ in ours}]
    groups = ["Here", *(f"Paper: {row['teacher']} to {row['student']}, {row['data']}" for row in papers)]
    base = next((scores for key, _, scores in ours if key == "vanilla"), {})
    best = _find_best([scores for key, _, scores in ours if key != "teacher"])
    rows = [_render_method(row, papers, base, best) for row in [*ours, *absent]]
    return _render_table(groups, rows) + (
        "<p>Gain: mAP above the vanilla student of the same column. The paper's pairs, data and recipe differ from ours, so "
        f"compare the order and the gains of the methods, not the numbers themselves. {escape(read_reference()['source'])}.</p>"
    )


def _render_method(row: tuple[str, str, Scores], papers: list[dict[str, Any]], base: Scores, best: Scores) -> str:
    key, title, scores = row
    cells = _render_scores(scores, base, {} if key == "teacher" else best, gain=key not in ("teacher", "vanilla"))
    for paper in papers:
        reported = paper["scores"].get(key, {})
        cells += _render_scores(reported, paper["scores"]["vanilla"], {}, gain=key not in ("teacher", "vanilla"))
    return f'<tr class="{"ours" if scores else "paper"}"><th scope="row">{escape(title)}</th>{cells}</tr>'


def _render_scores(scores: Scores, base: Scores, best: Scores, gain: bool) -> str:
    cells = [_render_cell(scores, best, measure) for measure in MEASURES]
    cells.insert(1, f"<td><small>{_format_gain(scores, base) if gain else ''}</small></td>")
    return f'<td class="space"></td>{"".join(cells)}'


def _render_cell(scores: Scores, best: Scores, measure: str) -> str:
    mark = ' class="best"' if measure in best and scores.get(measure) == best[measure] else ""
    return f"<td{mark}>{_format(scores.get(measure))}</td>"


def _render_table(groups: list[str], rows: list[str]) -> str:
    span = len(MEASURES) + 1
    top = "".join(f'<td></td><th class="group" scope="colgroup" colspan="{span}">{escape(group)}</th>' for group in groups)
    names = "<td></td>" + "".join(f'<th scope="col">{name}</th>' for name in (MEASURES[0], "gain", *MEASURES[1:]))
    head = f'<tr><td></td>{top}</tr><tr><th scope="col">Model or method</th>{names * len(groups)}</tr>'
    return _wrap_table("Scores", head, rows)


def _wrap_table(title: str, head: str, rows: list[str]) -> str:
    # A wide table scrolls by itself; a focusable region does so by keyboard too.
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{table}</div>'


def _render_localization(entries: list[Entry]) -> str:
    reports = [(entry, entry.card.scores["localization"]) for entry in entries if isinstance(entry.card.scores.get("localization"), dict)]
    if not reports:
        return ""
    best = _find_best([read_scores(entry.card.scores) for entry, _ in reports if _key(entry) != "teacher"])
    sizes = [size for size in SIZES if any(_dig(report, "by_size", size) for _, report in reports)]
    head = "".join(f'<th scope="col">{title}</th>' for title in LOCALIZATION_SCORES.values())
    head += "".join(f'<th scope="col">{title},<br>{size} objects</th>' for title in LOCALIZATION_SCORES.values() for size in sizes)
    rows = [_render_located(entry, report, {} if _key(entry) == "teacher" else best, sizes) for entry, report in reports]
    return _wrap_table("Localization", f'<tr><th scope="col">Model</th>{head}<th scope="col">Pairs</th></tr>', rows)


def _render_located(entry: Entry, report: dict[str, Any], best: Scores, sizes: list[str]) -> str:
    scores = read_scores({"localization": report})
    cells = "".join(_render_cell(scores, best, name) for name in LOCALIZATION_SCORES)
    cells += "".join(f"<td>{_format(_dig(report, 'by_size', size, name))}</td>" for name in LOCALIZATION_SCORES for size in sizes)
    pairs = report.get("pairs")
    cells += f"<td>{pairs:,}</td>" if isinstance(pairs, int) else "<td>–</td>"
    return f'<tr class="ours"><th scope="row">{escape(entry.card.title)}</th>{cells}</tr>'


def _key(entry: Entry) -> str:
    return "teacher" if entry.card.role == "teacher" else entry.card.method


def _find_best(scores: list[Scores]) -> Scores:
    """The highest of every measure, where there is more than one to compare."""
    names = {name for each in scores for name in each} if len(scores) > 1 else set()
    return {name: max(each[name] for each in scores if name in each) for name in names}


def _dig(report: Any, *path: str) -> Any:
    for name in path:
        report = report.get(name) if isinstance(report, dict) else None
    return report


def _format_gain(scores: Scores, base: Scores) -> str:
    if "mAP" not in scores or "mAP" not in base:
        return ""
    gain = round(scores["mAP"] - base["mAP"], 1)
    return f"{gain:+.1f}".replace("-", "−") if gain else "0.0"


def _format(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else "–"
