"""Tables of whole series of trainings, `checkpoints/evidence*.json`: methods by several seeds, as `l2d reproduce` writes them."""

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from app.ui.strips import OURS, Axis, Mark, render_axis, render_strip, render_swatch
from app.ui.tables import SPACE, Group, Percentage, find_best, render_group, render_row, render_table, render_unreadable
from l2d.distill import TITLES
from l2d.published import COMPARE
from l2d.series import describe_pictures, describe_seeds, find_common

FILES = "evidence*.json"
LEGEND = f"<small>{render_swatch(Mark(0.0, colour=OURS))}here {render_swatch(Mark(0.0, 'diamond'))}paper</small>"
# No file says whose pictures they are, or how many of the original's.
DATA_TITLES = {
    "coco": "pictures in MS-COCO's layout",
    "coco2017": "pictures in MS-COCO 2017's layout",
    "voc": "pictures in VOC 2007's layout",
    "voc-easy": "pictures in VOC 2007's layout without difficult objects",
    "nuswide": "pictures in NUS-WIDE's layout",
    "shapes": "drawn shapes",
    "csv": "a table of pictures",
}


Gain = Annotated[float, Field(ge=-100, le=100)]


class Method(BaseModel, allow_inf_nan=False):
    """One method's scores in percent, ours and the paper's; what is not measured or not published is missing."""

    ours: dict[str, Percentage] = {}
    spread: dict[str, Percentage] = {}
    paper: dict[str, Percentage] = {}
    gain: Gain | None = None
    paper_gain: Gain | None = None
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
    reports: dict[str, Report] = {}
    for path in sorted(folder.glob(FILES)):
        try:
            reports[path.name] = Report.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            yield render_unreadable(path, error)
    told = [report.notes for report in reports.values()]
    shared = [note for note in told[0] if all(note in notes for notes in told) and not _is_warning(note)] if len(told) > 1 else []
    for name, report in reports.items():
        yield from _render_report(name, reports, [note for note in report.notes if note not in shared])
    yield _render_notes("What differs from the paper in all of these series", shared)
    for source in dict.fromkeys(report.source for report in reports.values() if report.source):
        yield f"<p>The paper: {escape(source.removesuffix('.'))}.</p>"


def _render_report(name: str, reports: Mapping[str, Report], notes: list[str]) -> Iterator[str]:
    for pair in reports[name].rows:
        title, beside = _title(reports[name], pair), _title_paper(pair)
        alike = [(file, other) for file, report in reports.items() for other in report.rows if _title(report, other) == title]
        # The same networks by the same recipe: on other pictures, or beside several of the paper's rows.
        file = f" ({name})" * (len({file for file, _ in alike}) > 1)
        apart = f"{beside}{file}" if len({_title_paper(other) for _, other in alike}) > 1 else file
        yield f"<h2>{escape(title + apart)}</h2>"
        runs = [len(method.runs) for key, method in pair.methods.items() if key != "teacher"]
        caption = (describe_seeds(runs), _describe_pictures(pair), _explain_gains(pair), *map(escape, filter(_is_warning, notes)))
        yield f"<p>{' '.join(filter(None, caption))}</p>"
        yield _render_pair(f"{title}{beside}{file}", pair)
    yield _render_notes("What differs from the paper", [note for note in notes if not _is_warning(note)])


def _is_warning(note: str) -> bool:
    """Whether it is told above the numbers: folded up with the others it would be read after them, if at all."""
    return note.endswith(COMPARE)


def _title(report: Report, pair: Pair) -> str:
    kind = report.data.partition(":")[0]
    teacher, student = pair.networks or (pair.teacher, pair.student)
    recipe = f", {report.recipe} recipe" if report.recipe else ""
    return f"Methods on {DATA_TITLES.get(kind, kind)}: {teacher} to {student}{recipe}"


def _title_paper(pair: Pair) -> str:
    return f", beside {pair.teacher} to {pair.student}"


def _render_notes(title: str, notes: list[str]) -> str:
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    # Closed: tables are compared with each other, and the notes are longer than they are.
    return f"<details><summary>{title}</summary><ul>{listed}</ul></details>" if notes else ""


def _describe_pictures(pair: Pair) -> str:
    """Empty for files that do not tell how many there were."""
    return describe_pictures(find_common([method.pictures for name, method in pair.methods.items() if name != "teacher" and method.runs]))


def _explain_gains(pair: Pair) -> str:
    spread = any("mAP" in method.spread for name, method in pair.methods.items() if name != "teacher")
    bars = ". Bars are the methods' own deviations, the vanilla student's around 0" if spread else ""
    return f"Gain: mAP above the vanilla student of the same column{bars}."


def _render_pair(title: str, pair: Pair) -> str:
    students = [method for name, method in pair.methods.items() if name != "teacher"]
    best = find_best([method.ours for method in students], [method.spread for method in students])
    marks = {name: _mark_gains(name, method) for name, method in pair.methods.items()}
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


def _mark_gains(name: str, method: Method) -> list[Mark]:
    """The paper's gain below ours with the method's own deviation.

    The vanilla student has its deviation, too: over a mere line at 0 gains would look more certain than they are.
    """
    spread = method.spread.get("mAP", 0.0)
    gain = 0.0 if name == "vanilla" and spread else method.gain
    paper = [] if method.paper_gain is None else [Mark(method.paper_gain, "diamond")]
    return paper + ([] if gain is None else [Mark(gain, colour=OURS, spread=spread)])
