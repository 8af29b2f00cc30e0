"""A job's charts, as HTML: the losses' parts and the score, by epoch. Whatever is shown is escaped."""

import functools
import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from app.jobs import STUDENT, TEACHER
from app.records import JobFolder
from app.ui.strips import COLOURS
from app.ui.tables import format_score
from l2d.layers import format_number

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 190, 56, 24
# Most points of a curve: a long run's is thinned out. A job of a week tells half a million steps, and is drawn anew every two seconds.
MOST_POINTS = 400
# Epochs between two points, until there are too many: less than a step. Of its doubles none is rounded.
FINEST = 2.0**-20
# Jobs whose histories are kept, for whoever looks again.
KEPT_HISTORIES = 16

CSS = """
.l2d-curves { display: flex; flex-wrap: wrap; gap: 12px; }
.l2d-curves figure { margin: 0; flex: 1 1 300px; min-width: 0; }
.l2d-curves svg { width: 100%; height: auto; color: var(--body-text-color); }
.l2d-curves text { font-size: 15px; fill: currentColor; }
.l2d-curves figcaption { font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 12px; }
.l2d-curves i { display: inline-block; width: 14px; height: 3px; margin-right: 4px; vertical-align: middle; forced-color-adjust: none; }
"""


class Curve(NamedTuple):
    """One line of a chart: (epoch, value), the epoch may be a fraction."""

    name: str
    points: list[tuple[float, float]]


class Track:
    """What is kept of one curve: all points of a short run, of a long one those at the ends of equal stretches."""

    def __init__(self) -> None:
        self._stretch = FINEST
        # By the number of its stretch.
        self._points: dict[int, tuple[float, float]] = {}

    def add(self, epoch: float, value: float) -> None:
        """Add a point, in place of an earlier one of its stretch."""
        self._points[math.ceil(epoch / self._stretch)] = epoch, value
        while len(self._points) > MOST_POINTS:
            self._stretch *= 2
            self._points = {math.ceil(point[0] / self._stretch): point for point in self.list_points()}

    def list_points(self) -> list[tuple[float, float]]:
        """By epoch."""
        return sorted(self._points.values())


class History:
    """The losses and scores that a job has told so far; where an epoch was told twice, the last word counts.

    Who follows it reads only what is new. Safe to use from several threads.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = ()):
        self._lock, self._place = threading.Lock(), 0
        # By stage, losses also by their part. A step's epoch is a fraction.
        self._losses: dict[str, defaultdict[str, Track]] = {}
        self._scores: defaultdict[str, Track] = defaultdict(Track)
        for record in records:
            self._add(record)

    def follow(self, folder: JobFolder) -> "History":
        """Read what a job has told since the last time."""
        with self._lock:
            while lines := folder.read(self._place):
                self._place = lines[-1].after
                for line in lines:
                    self._add(line.record)
        return self

    @property
    def stage(self) -> str | None:
        """Whose losses are told now; None before the first ones."""
        return next((stage for stage in (STUDENT, TEACHER) if stage in self._losses), None)

    def list_losses(self) -> list[Curve]:
        """The parts of that stage's loss."""
        with self._lock:
            return [Curve(name, track.list_points()) for name, track in (self._losses[self.stage] if self.stage else {}).items()]

    def list_scores(self) -> list[Curve]:
        """mAP of either stage."""
        with self._lock:
            return [Curve(stage, self._scores[stage].list_points()) for stage in (STUDENT, TEACHER) if stage in self._scores]

    def _add(self, record: dict[str, Any]) -> None:
        if record["event"] == "epoch":
            at = float(record["epoch"])
            if record["mAP"] is not None:
                self._scores[record["stage"]].add(at, record["mAP"])
        elif record["event"] == "step":
            at = record["epoch"] - 1 + record["step"] / record["steps"]
        else:
            return
        losses = self._losses.setdefault(record["stage"], defaultdict(Track))
        for name, value in record["losses"].items():
            losses[name].add(at, value)


@functools.lru_cache(KEPT_HISTORIES)
def recall_history(job: Path) -> History:
    """The one history of the job in this folder, shared by all who look at it: with what was read so far."""
    return History()


def show_curves(history: History, mark: int | None = None) -> str:
    """The losses' parts and the score, by epoch.

    Args:
        mark: the student's epoch whose maps are shown.
    """
    stage = history.stage
    title = f"Losses of the {stage}, weighted" if stage else "Losses, weighted"
    mark = mark if stage == STUDENT else None
    return (
        f'<div class="l2d-curves">{_draw(title, history.list_losses(), mark, logarithmic=True)}'
        f"{_draw('mAP on the pictures held out, percent', history.list_scores(), mark, logarithmic=False)}</div>"
    )


def _draw(title: str, curves: Sequence[Curve], mark: int | None, logarithmic: bool) -> str:
    """One chart as SVG."""
    curves = [Curve(name, [point for point in points if not logarithmic or point[1] > 0]) for name, points in curves]
    coloured = [(curve, colour) for curve, colour in zip(curves, COLOURS, strict=False) if curve.points]
    if not coloured:
        return f"<figure><figcaption>{title}: none so far</figcaption></figure>"
    scale = _Scale.of([point for curve, _ in coloured for point in curve.points], logarithmic)
    lines = "" if mark is None else _draw_mark(scale.x(mark))
    lines += "".join(_draw_line(curve, colour, scale) for curve, colour in coloured)
    write = format_number if logarithmic else format_score
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{escape(curve.name)} {write(curve.points[-1][1])}</span>' for curve, colour in coloured
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{_draw_axes(scale)}{lines}</svg>'
        f"<figcaption><b>{title}</b>{legend}</figcaption></figure>"
    )


class _Scale(NamedTuple):
    """Where epochs and values stand in a chart: its last epoch, and the values at its lower and upper end."""

    last: float
    low: float
    high: float
    logarithmic: bool

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]], logarithmic: bool) -> "_Scale":
        last, values = max(epoch for epoch, _ in points), [value for _, value in points]
        if not logarithmic:
            return cls(last, 0.0, 100.0 if max(values) > 50 else 50.0, logarithmic)
        # Equal values get some room.
        room = 10**0.5 if max(values) / min(values) < 1 + 1e-6 else 1.0
        return cls(last, min(values) / room, max(values) * room, logarithmic)

    def x(self, epoch: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - 8) * epoch / self.last:.1f}"

    def y(self, value: float) -> str:
        level, low, high = (math.log10(number) if self.logarithmic else number for number in (value, self.low, self.high))
        return f"{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * (level - low) / (high - low):.1f}"


def _draw_axes(scale: _Scale) -> str:
    return (
        f'<path d="M{LEFT} 8V{HEIGHT - BOTTOM}H{WIDTH - 6}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
        f'<text x="{LEFT - 5}" y="16" text-anchor="end">{format_number(scale.high)}</text>'
        f'<text x="{LEFT - 5}" y="{HEIGHT - BOTTOM}" text-anchor="end">{format_number(scale.low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>'
        f'<text x="{WIDTH - 6}" y="{HEIGHT - 6}" text-anchor="end">epoch {round(scale.last, 1):g}</text>'
    )


def _draw_mark(x: str) -> str:
    return f'<path class="mark" d="M{x} 8V{HEIGHT - BOTTOM}" stroke="currentColor" stroke-opacity=".55" stroke-dasharray="3 3"/>'


def _draw_line(curve: Curve, colour: str, scale: _Scale) -> str:
    places = [(scale.x(epoch), scale.y(value)) for epoch, value in curve.points]
    points, (x, y) = " ".join(",".join(place) for place in places), places[-1]
    dot = f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{dot}'
