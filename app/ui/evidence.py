"""Tables of whole series of trainings, `checkpoints/evidence*.json`: methods by several seeds, as `l2d reproduce` writes them."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from pydantic import BaseModel, ValidationError

from app.ui.strips import Axis, Mark, render_axis, render_strip, render_swatch
from app.ui.tables import SPACE, Group, find_best, render_group, render_row, render_table
from l2d.distill import TITLES
from l2d.series import describe_pictures, describe_seeds, find_common

FILES = "evidence*.json"
OURS = "#0d9488"
LEGEND = f"<small>{render_swatch(Mark(0.0, colour=OURS))}here {render_swatch(Mark(0.0, 'diamond'))}paper</small>"
# No file says whose pictures they are, or how many of the original's.
DATA_TITLES = {
    "coco": "pictures in MS-COCO's layout",
    "voc": "pictures in VOC 2007's layout",
    "nuswide": "pictures in NUS-WIDE's layout",
    "shapes": "drawn shapes",
    "csv": "a table of pictures",
}


class Method(BaseModel, allow_inf_nan=False):
    """One method's scores in percent, ours and the paper's; what is not measured or not published is missing."""

    ours: dict[str, float] = {}
    spread: dict[str, float] = {}
    paper: dict[str, float] = {}
    gain: float | None = None
    paper_gain: float | None = None
    runs: list[str] = []
    pictures: dict[str, int] = {}


class Pair(BaseModel):
    """A teacher and a student by the paper's names, and by those of the networks that were really used."""

    data: str
    teacher: str
    student: str
    networks: tuple[str, str] | None = None
    methods: dict[str, Method]


class Report(BaseModel):
    """What `l2d.comparison.collect_table` gives, as far as it is shown."""

    data: str
    recipe: str | None = None
    notes: list[str] = []
    rows: list[Pair]
    source: str = ""


def render_evidence(folder: Path) -> Iterator[str]:
    """A section per file; one that cannot be read says so. What differs from the paper in all of them is told once, at the end."""
    reports = []
    for path in sorted(folder.glob(FILES)):
        try:
            reports.append(Report.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            yield f"<h2>{escape(path.name)}</h2><p>This file cannot be shown: {escape(reason)}.</p>"
    shared = [note for note in reports[0].notes if all(note in report.notes for report in reports)] if len(reports) > 1 else []
    for report in reports:
        yield from _render_report(report, [note for note in report.notes if note not in shared])
    yield _render_notes("What differs from the paper in all of these series", shared)
    for source in dict.fromkeys(report.source for report in reports if report.source):
        yield f"<p>The paper: {escape(source.removesuffix('.'))}.</p>"


def _render_report(report: Report, notes: list[str]) -> Iterator[str]:
    kind = report.data.partition(":")[0]
    for pair in report.rows:
        teacher, student = pair.networks or (pair.teacher, pair.student)
        recipe = f", {report.recipe} recipe" if report.recipe else ""
        title = f"Methods on {DATA_TITLES.get(kind, kind)}: {teacher} to {student}{recipe}"
        yield f"<h2>{escape(title)}</h2>"
        runs = [len(method.runs) for name, method in pair.methods.items() if name != "teacher"]
        gains = "Gain: mAP above the vanilla student of the same column; the bar through it is the method's deviation."
        caption = (describe_seeds(runs), _describe_pictures(pair), gains)
        yield f"<p>{' '.join(filter(None, caption))}</p>"
        yield _render_pair(title, pair)
    yield _render_notes("What differs from the paper", notes)


def _render_notes(title: str, notes: list[str]) -> str:
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    # Closed: tables are compared with each other, and the notes are longer than they are.
    return f"<details><summary>{title}</summary><ul>{listed}</ul></details>" if notes else ""


def _describe_pictures(pair: Pair) -> str:
    """Empty for files that do not tell how many there were."""
    return describe_pictures(find_common([method.pictures for name, method in pair.methods.items() if name != "teacher" and method.runs]))


def _render_pair(title: str, pair: Pair) -> str:
    students = [method for name, method in pair.methods.items() if name != "teacher"]
    best = find_best([method.ours for method in students], [method.spread for method in students])
    marks = {name: _mark_gains(method) for name, method in pair.methods.items()}
    axis = Axis.around(mark.value + side * mark.spread for each in marks.values() for mark in each for side in (-1, 1))
    rows = [
        render_row(
            TITLES.get(name, name),
            render_group(method.ours, method.gain, {} if name == "teacher" else best, method.spread)
            + f"{SPACE}{render_strip(axis, marks[name])}"
            + render_group(method.paper, method.paper_gain, {}),
            ours=bool(method.ours),
        )
        for name, method in pair.methods.items()
    ]
    groups = [
        Group("Here"),
        Group("Gain in mAP", [render_axis(axis, "Gain")], LEGEND),
        Group(f"Paper: {pair.teacher} to {pair.student}, {pair.data}"),
    ]
    return render_table(title, groups, rows)


def _mark_gains(method: Method) -> list[Mark]:
    """The paper's gain below ours, which has a bar of the method's own deviation."""
    paper = [] if method.paper_gain is None else [Mark(method.paper_gain, "diamond")]
    return paper + ([] if method.gain is None else [Mark(method.gain, colour=OURS, spread=method.spread.get("mAP", 0.0))])
