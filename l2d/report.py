"""Results of a series of trainings as files: JSON for programs, Markdown for people, a plot as PNG and PDF."""

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from l2d.disk import hold_folder, replace_file, sweep_partial
from l2d.distill import TITLES
from l2d.figure import choose_family, save_figure
from l2d.published import MEASURES
from l2d.series import describe_pictures, describe_seeds, describe_sweep, find_common

OURS, PAPER, INK = "#3b5bdb", "#868e96", "#1c1c1e"
TEACHER_LINES = {"ours": "--", "paper": ":"}
# Inches: one panel fits a paper's column, two its text width, so that no letter is made smaller there.
PANEL_WIDTH, PANEL_HEIGHT = 3.4, 2.7
PANELS_A_LINE = 2
# Of a panel's title, in letters.
TITLE_LETTERS = 36
# Beside a curve on its logarithmic axis, as a factor.
MARGIN = 1.5
# Of the scores in a sweep's curves, in points of mAP.
LEAST_SPAN = 1.0
# Width of a weight's number as a share of that axis.
NUMBER_SHARE = 0.12


def write_table(folder: Path, report: dict[str, Any]) -> list[Path]:
    """A table of `l2d.comparison.collect_table` as NAME.json, .md, .png and .pdf, with the rows that `keep_rows` finds; return the files.

    Raises:
        ValueError: as `keep_rows`.
    """
    # Else rows would be lost that somebody else writes between reading and writing.
    with hold_folder(folder, patient=True):
        whole = keep_rows(folder, report)
        return _write(folder, report["table"], whole, table_as_markdown(whole), plot_table(whole))


def keep_rows(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """A table with the rows of the one that is in the folder already; a row of the same number and networks is the new one.

    Raises:
        ValueError: if rows would stand together that were made in different ways, under notes that are true of some; or if the one that is
            there is damaged.
    """
    path = folder / f"{report['table']}.json"
    anew = [_name_row(row) for row in report["rows"]]
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
        kept = [row for row in earlier["rows"] if _name_row(row) not in anew]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not as it was written: remove this file. The trained networks lie beside it and stay.") from error
    if kept and (changed := [name for name in ("data", "recipe", "notes") if earlier.get(name) != report[name]]):
        raise ValueError(
            f"{path} has other rows, made otherwise than asked for now ({', '.join(changed)}): choose another --out, or remove this file. "
            "The trained networks lie beside it and stay."
        )
    return report | {"rows": sorted([*kept, *report["rows"]], key=_name_row)}


def _name_row(row: dict[str, Any]) -> tuple[int, str, str]:
    return row["number"], *row["networks"]


def write_sweep(folder: Path, report: dict[str, Any]) -> list[Path]:
    """Curves of `l2d.sweep.collect_sweep` as sweep.json, .md, .png and .pdf; return the files."""
    with hold_folder(folder, patient=True):
        return _write(folder, "sweep", report, sweep_as_markdown(report), plot_sweep(report))


def table_as_markdown(report: dict[str, Any]) -> str:
    """Ours beside the paper's, a section per row of the table."""
    number = report["table"].removeprefix("table")
    about = "Percent on the test pictures; differences and gains are those of the numbers before rounding."
    parts = [f"# Table {number} on {report['data']}", f"{about} Source of the paper's numbers: {report['source']}."]
    parts += [_as_list(report["notes"]), *(_row_as_markdown(row) for row in report["rows"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row_as_markdown(row: dict[str, Any]) -> str:
    titles = [f"{name} {measure}" for measure in MEASURES for name in ("ours", "paper")]
    header = ["Method", *titles, "mAP: ours - paper", "gain", "paper's gain"]
    lines = [_table_line(header), _table_line(["---"] + ["---:"] * (len(header) - 1))]
    for method, entry in row["methods"].items():
        spread = entry["spread"]
        cells = [
            _percent(entry[name].get(measure), spread.get(measure) if name == "ours" else None)
            for measure in MEASURES
            for name in ("ours", "paper")
        ]
        gains = [_signed(value) for value in (entry["difference"].get("mAP"), entry.get("gain"), entry.get("paper_gain"))]
        lines.append(_table_line([TITLES.get(method, method), *cells, *gains]))
    title = f"## {' → '.join(row['networks'])} (paper: {row['teacher']} → {row['student']} on {row['data']})"
    trained = [entry for name, entry in row["methods"].items() if name != "teacher" and entry["runs"]]
    seeds = describe_seeds([len(entry["runs"]) for entry in trained]) if trained else ""
    pictures = describe_pictures(find_common([entry.get("pictures", {}) for entry in trained]))
    told = " ".join(filter(None, (seeds, pictures, _describe_epochs(row.get("epochs", {})))))
    return "\n\n".join(part for part in (title, told, "\n".join(lines)) if part)


def _describe_epochs(epochs: Mapping[str, int]) -> str:
    """Empty for rows of an earlier version."""
    listed = ", ".join(f"{who} {count}" for who, count in epochs.items())
    return f"Epochs: {listed}." if listed else ""


def plot_table(report: dict[str, Any]) -> Figure:
    """What every method gains in mAP over the vanilla student, ours and the paper's, a panel per row of the table.

    Where ours is not there yet, mAP itself. On one axis of mAP methods hardly differ: the paper's is far from ours on other pictures.
    """
    figure, panels = _make_panels(len(report["rows"]))
    for axes, row in zip(panels, report["rows"], strict=True):
        names = [name for name in row["methods"] if name != "teacher"]
        bases = _find_bases(row["methods"])
        for key, colour, marker in (("paper", PAPER, "D"), ("ours", OURS, "o")):
            _draw_scores(axes, row["methods"], names, key, bases.get(key, 0.0), colour, marker)
            if not bases:
                _draw_teacher(axes, row["methods"]["teacher"][key], key, colour)
        _draw_deviations(axes, row["methods"], names, bases.get("ours", 0.0))
        if bases:
            axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks(range(len(names)), [TITLES.get(name, name) for name in names], rotation=40, ha="right", fontsize=8)
        # A teacher's folder may be called as anything; two dollars are no formula.
        title = _title_panel(row, report["rows"])
        axes.set_title(textwrap.fill(title, TITLE_LETTERS), fontsize=9, parse_math=False, family=choose_family(title))
        axes.set_ylabel("mAP above vanilla (points)" if bases else "mAP (%)", fontsize=8)
    _explain_marks(figure, panels)
    return figure


def _title_panel(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The networks, and the paper's where another row has the same ones: of given networks every row has."""
    title = " → ".join(row["networks"])
    alike = sum(other["networks"] == row["networks"] for other in rows) > 1
    return f"{title} (paper: {row['teacher']} → {row['student']})" if alike else title


def _find_bases(entries: dict[str, Any]) -> dict[str, float]:
    """mAP of the vanilla student, ours and the paper's; none without ours."""
    vanilla = entries.get("vanilla", {"ours": {}})
    return {key: vanilla[key]["mAP"] for key in ("ours", "paper") if "mAP" in vanilla[key]} if "mAP" in vanilla["ours"] else {}


def _draw_scores(axes: Axes, entries: dict[str, Any], names: Sequence[str], key: str, base: float, colour: str, marker: str) -> None:
    known = [(place, entries[name][key]["mAP"] - base) for place, name in enumerate(names) if "mAP" in entries[name][key]]
    axes.plot(*_split(known), marker, color=colour, markersize=4, label=key)


def _draw_teacher(axes: Axes, scores: Mapping[str, float], key: str, colour: str) -> None:
    if "mAP" in scores:
        axes.axhline(scores["mAP"], color=colour, linewidth=0.8, linestyle=TEACHER_LINES[key], label=f"teacher, {key}")


def _draw_deviations(axes: Axes, entries: dict[str, Any], names: Sequence[str], base: float) -> None:
    """Bars at our scores of several seeds."""
    known = [(place, entries[name]) for place, name in enumerate(names) if "mAP" in entries[name]["spread"]]
    if known:
        places, heights = _split([(place, entry["ours"]["mAP"] - base) for place, entry in known])
        spreads = [entry["spread"]["mAP"] for _, entry in known]
        axes.errorbar(places, heights, yerr=spreads, fmt="none", ecolor=OURS, elinewidth=1, capsize=2, label="± deviation over seeds")


def _split(points: Sequence[tuple[float, float]]) -> tuple[Sequence[float], Sequence[float]]:
    """Places and heights."""
    return [place for place, _ in points], [height for _, height in points]


def sweep_as_markdown(report: dict[str, Any]) -> str:
    """A section per curve: weight and score of every point, the best and the published ones marked."""
    parts = [f"# Sensitivity to the loss weights, on {report['data']}", _describe_sweep(report), _as_list(report.get("notes", []))]
    for loss, curve in report["curves"].items():
        lines = [_table_line(["weight", "mAP, held out", ""]), _table_line(["---:", "---:", "---"])]
        for point in curve["points"]:
            marks = [word for word in ("usual", "best") if point["weight"] == curve[word]]
            lines.append(_table_line([f"{point['weight']:g}", _percent(point["mAP"]), ", ".join(marks)]))
        parts.append(f"## {loss}\n\n" + "\n".join(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe_sweep(report: dict[str, Any]) -> str:
    what = (
        f"{report['teacher']} → {report['student']}, method {report['method']}, recipe {report['recipe']}: each weight varied, "
        "with the others at their usual values."
    )
    return f"{what} {describe_sweep(report['holdout'], report['seed'], report['pictures'])}"


def plot_sweep(report: dict[str, Any]) -> Figure:
    """A panel per loss: held-out mAP over its weight, the usual weight as a line; one scale of mAP for all."""
    figure, panels = _make_panels(len(report["curves"]))
    # On axes of their own, a loss that hardly matters would look as steep as the one that decides.
    for axes in panels[1:]:
        axes.sharey(panels[0])
    for axes, (loss, curve) in zip(panels, report["curves"].items(), strict=True):
        weights = [point["weight"] for point in curve["points"]]
        # Before anything is drawn: a single point gives matplotlib no range to choose.
        axes.set_xscale("log")
        axes.set_xlim(min(weights) / MARGIN, max(weights) * MARGIN)
        points = [(point["weight"], point["mAP"]) for point in curve["points"] if point["mAP"] is not None]
        axes.plot(*_split(points), marker="o", markersize=4, color=OURS)
        axes.axvline(curve["usual"], color=PAPER, linewidth=0.8, linestyle="--", label="usual weight")
        axes.set_xticks(weights, [f"{weight:g}" for weight in weights], fontsize=8, rotation=90 if _is_crowded(weights) else 0)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(f"weight of {loss}", fontsize=9)
        axes.set_ylabel("mAP, held out (%)", fontsize=8)
    low, high = panels[0].get_ylim()
    # Less may be chance, and looks flat then.
    panels[0].set_ylim(min(low, (low + high - LEAST_SPAN) / 2), max(high, (low + high + LEAST_SPAN) / 2))
    _explain_marks(figure, panels)
    return figure


def _is_crowded(weights: Sequence[float]) -> bool:
    """Whether two of them are so close on their axis that their numbers would touch."""
    steps = [math.log(higher / lower) for lower, higher in pairwise(weights)]
    return bool(steps) and min(steps) < NUMBER_SHARE * math.log(MARGIN**2 * weights[-1] / weights[0])


def _explain_marks(figure: Figure, panels: Sequence[Axes]) -> None:
    """A legend of what any panel shows, outside of all, where it covers no score."""
    marks = {label: mark for axes in panels for mark, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if marks:
        columns = 2 * min(len(panels), PANELS_A_LINE)
        figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=columns, fontsize=7, frameon=False)


def _make_panels(count: int) -> tuple[Figure, list[Axes]]:
    across = max(1, min(count, PANELS_A_LINE))
    lines = max(1, math.ceil(count / across))
    figure = Figure(figsize=(PANEL_WIDTH * across, PANEL_HEIGHT * lines), layout="constrained")
    panels = [figure.add_subplot(lines, across, place + 1) for place in range(count)]
    for axes in panels:
        axes.tick_params(labelsize=8, colors=INK)
        axes.grid(axis="y", linewidth=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _write(folder: Path, name: str, report: dict[str, Any], markdown: str, figure: Figure) -> list[Path]:
    sweep_partial(folder)
    paths = [folder / f"{name}{suffix}" for suffix in (".json", ".md", ".png", ".pdf")]
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    replace_file(paths[0], lambda path: path.write_text(text, encoding="utf-8"))
    replace_file(paths[1], lambda path: path.write_text(markdown, encoding="utf-8"))
    replace_file(paths[2], lambda path: save_figure(figure, path, "png"))
    replace_file(paths[3], lambda path: save_figure(figure, path, "pdf"))
    return paths


def _as_list(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if spread is None else f"{value:.2f} ± {spread:.2f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"
