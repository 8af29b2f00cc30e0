"""Curves of a student's sensitivity to the weight of each loss, `checkpoints/sweep*.json`, as `l2d sweep` writes them."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from app.ui.strips import OURS, Axis, choose_step
from app.ui.tables import Percentage, format_score, render_unreadable
from l2d.distill import TITLES
from l2d.series import describe_sweep

FILES = "sweep*.json"
WIDTH, HEIGHT, LEFT, BOTTOM = 330, 190, 44, 26
# Width of a number, and how far it lies from the next.
NUMBER = 44
# Between a panel's ends and its first and last point.
ROOM = 22


class Point(BaseModel, allow_inf_nan=False):
    """A weight, and mAP in percent on pictures held out; None before it is measured."""

    weight: float = Field(gt=0)
    score: Percentage | None = Field(None, alias="mAP")


class Sensitivity(BaseModel, allow_inf_nan=False):
    """One loss's curve."""

    usual: float = Field(gt=0)
    points: list[Point]


class Sweep(BaseModel):
    """What `l2d.sweep.collect_sweep` gives, as far as it is shown."""

    teacher: str
    student: str
    method: str
    recipe: str
    holdout: float = Field(gt=0, lt=1)
    seed: int
    pictures: dict[str, int] = {}
    curves: dict[str, Sensitivity]


def render_sweeps(folder: Path) -> Iterator[str]:
    """A section per file; one that cannot be read says so."""
    sweeps: dict[str, Sweep] = {}
    for path in sorted(folder.glob(FILES)):
        try:
            sweeps[path.name] = Sweep.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            yield render_unreadable(path, error)
    titles = Counter(map(_title, sweeps.values()))
    for name, sweep in sweeps.items():
        # On other pictures, say.
        title = _title(sweep) + f" ({name})" * (titles[_title(sweep)] > 1)
        yield f"<h2>{escape(title)}</h2><p>{escape(_describe(sweep))}</p>"
        yield f'<div class="panels">{"".join(_render_panels(sweep))}</div>'


def _title(sweep: Sweep) -> str:
    method = TITLES.get(sweep.method, sweep.method)
    return f"The weight of each loss of {method}: {sweep.teacher} to {sweep.student}, {sweep.recipe} recipe"


def _describe(sweep: Sweep) -> str:
    what = "One loss's weight is varied, the others stay at the usual ones (dashed line), as in the paper's Figure 1, which has no numbers."
    return f"{what} {describe_sweep(sweep.holdout, sweep.seed, sweep.pictures)}"


def _render_panels(sweep: Sweep) -> Iterator[str]:
    # One scale of mAP for all: on its own, a loss that hardly matters would look as steep as the one that decides.
    scores = [point.score for curve in sweep.curves.values() for point in curve.points if point.score is not None]
    axis = _choose_axis(scores)
    for loss, curve in sweep.curves.items():
        known = sorted((point.weight, point.score) for point in curve.points if point.score is not None)
        if axis is None or not known:
            yield f"<figure><figcaption><b>{escape(loss)}</b> not measured yet</figcaption></figure>"
            continue
        listed = ", ".join(f"{format_score(score)} at {weight:g}" for weight, score in known)
        label = escape(f"mAP over the weight of {loss}: {listed}")
        # Of equally good ones the usual, as the command has it.
        best, score = max(known, key=lambda point: (point[1], point[0] == curve.usual))
        yield (
            f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{_draw(curve, known, axis)}</svg>'
            f"<figcaption>mAP over the weight of <b>{escape(loss)}</b>, best of these {format_score(score)} at {best:g}</figcaption>"
            "</figure>"
        )


def _choose_axis(scores: Sequence[float]) -> Axis | None:
    """From the lowest score to the highest, with round ends; a point at least, which may be chance, so that less looks flat."""
    if not scores:
        return None
    high = max(scores)
    low = min(*scores, high - 1)
    step = choose_step((high - low) / 2)
    return Axis.around([low, high], line=step * math.floor(low / step))


def _draw(curve: Sensitivity, known: Sequence[tuple[float, float]], axis: Axis) -> str:
    weights = sorted({curve.usual, *(point.weight for point in curve.points)})
    low, high = math.log(weights[0]), math.log(weights[-1])

    def x(weight: float) -> float:
        share = (math.log(weight) - low) / (high - low) if high > low else 0.5
        return LEFT + ROOM + (WIDTH - LEFT - 2 * ROOM) * share

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 14) * axis.place(score) / 100

    ticks, free = "", 0.0
    for weight in weights:
        # Where points are close, not every weight has room for its number.
        if x(weight) >= free:
            ticks += f'<text x="{x(weight):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{weight:g}</text>'
            free = x(weight) + NUMBER
    ticks += "".join(f'<text x="{LEFT - 6}" y="{y(value) + 5:.1f}" text-anchor="end">{value:g}</text>' for value in (axis.low, axis.high))
    frame = f'<path d="M{LEFT} 10V{HEIGHT - BOTTOM}H{WIDTH}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
    mark = f'<path d="M{x(curve.usual):.1f} 10V{HEIGHT - BOTTOM}" stroke="currentColor" stroke-opacity=".55" stroke-dasharray="3 3"/>'
    places = [(x(weight), y(score)) for weight, score in known]
    line = f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}" fill="none" stroke="{OURS}" stroke-width="2"/>'
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{OURS}"/>' for a, b in places)
    return frame + ticks + mark + line + dots
