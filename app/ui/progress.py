"""What the Distil tab shows of one job, as HTML: state, curves and log. Whatever is shown is escaped."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from app.jobs import Job
from app.orders import Order

WIDTH, HEIGHT, LEFT, BOTTOM = 460, 190, 48, 24
# A long run's curve is thinned out to about this many points.
POINTS = 300
COLOURS = ("#0d9488", "#d97706", "#7c3aed", "#dc2626", "#2563eb", "#65a30d")

CSS = """
.l2d-job { display: grid; gap: 6px; }
.l2d-job h3, .l2d-job p { margin: 0; }
.l2d-state { display: inline-block; padding: 1px 9px; border-radius: 9px; font-size: 13px; font-weight: 700; color: #fff !important; }
.l2d-state { background: #57534e; }
.l2d-state.running { background: #0f766e; } .l2d-state.succeeded { background: #15803d; } .l2d-state.failed { background: #b91c1c; }
.l2d-state.interrupted { background: #b45309; }
.l2d-job progress { width: 100%; height: 10px; appearance: none; border: 0; border-radius: 5px; overflow: hidden; }
.l2d-job progress, .l2d-job progress::-webkit-progress-bar { background: var(--background-fill-secondary); }
.l2d-job progress::-webkit-progress-value { background: #0d9488; } .l2d-job progress::-moz-progress-bar { background: #0d9488; }
.l2d-command textarea { font-family: var(--font-mono); font-size: 12px; line-height: 1.5; }
.l2d-curves { display: flex; flex-wrap: wrap; gap: 12px; }
.l2d-curves figure { margin: 0; flex: 1 1 300px; min-width: 0; }
.l2d-curves svg { width: 100%; height: auto; color: var(--body-text-color); }
.l2d-curves text { font-size: 11px; fill: currentColor; }
.l2d-curves figcaption { font-size: 13px; display: flex; flex-wrap: wrap; gap: 2px 12px; }
.l2d-curves i { display: inline-block; width: 14px; height: 3px; margin-right: 4px; vertical-align: middle; }
.l2d-log { max-height: 260px; overflow: auto; margin: 0; padding: 8px; font-size: 12px; white-space: pre-wrap;
  background: var(--background-fill-secondary); }
"""


class Curve(NamedTuple):
    """One line of a chart: (epoch, value), the epoch may be a fraction."""

    name: str
    points: list[tuple[float, float]]


def show_status(job: Job) -> str:
    """State, reason, progress bar and time left of a job."""
    name = escape(Order.model_construct(**job.spec).name)
    lines = [f'<h3>{name} <span class="l2d-state {job.state}">{job.state}</span></h3>']
    if job.state == "running":
        what = {"teacher": "Training the teacher", "student": "Training the student", "scores": "Scoring"}.get(job.stage, "Starting")
        left = "" if job.seconds_left is None else f", about {describe_seconds(job.seconds_left)} left"
        asked = {"cancel": " Cancelling.", "stop": " Stopping after the student's first epoch at the latest."}.get(job.request or "", "")
        lines.append(f'<progress max="1" value="{job.progress:.4f}" aria-label="progress"></progress>')
        lines.append(f"<p>{what}, epoch {max(job.epoch, 1)}: {100 * job.progress:.0f}%{left}.{asked}</p>")
    elif job.state == "queued":
        lines.append("<p>Waiting for its turn.</p>")
    else:
        lines.append(f"<p>{escape(job.reason)}</p>")
    if job.models:
        lines.append(f"<p>In Compare as {', '.join(f'<b>{escape(model)}</b>' for model in job.models)}.</p>")
    tries = f", attempt {job.attempts}" if job.attempts > 1 else ""
    lines.append(f"<p><small>Job {escape(job.id)}{tries}</small></p>")
    return f'<div class="l2d-job">{"".join(lines)}</div>'


def describe_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_curves(records: Iterable[dict[str, Any]], mark: int | None = None) -> str:
    """The losses' parts and the score, by epoch; where an epoch was told twice, the last word counts.

    Args:
        mark: the student's epoch whose maps are shown.
    """
    epochs: dict[tuple[str, int], dict[str, Any]] = {}
    steps: dict[tuple[str, int, int], dict[str, Any]] = {}
    for record in records:
        if record["event"] == "epoch":
            epochs[record["stage"], record["epoch"]] = record
        elif record["event"] == "step":
            steps[record["stage"], record["epoch"], record["step"]] = record
    stage = "student" if any(key[0] == "student" for key in (*epochs, *steps)) else "teacher"
    losses: dict[str, list[tuple[float, float]]] = {}
    for (_, epoch, _), record in sorted((key, record) for key, record in steps.items() if key[0] == stage):
        for name, value in record["losses"].items():
            losses.setdefault(name, []).append((epoch - 1 + record["step"] / record["steps"], value))
    for (_, epoch), record in sorted((key, record) for key, record in epochs.items() if key[0] == stage):
        for name, value in record["losses"].items():
            losses.setdefault(name, []).append((float(epoch), value))
    scores = {
        part: [
            (float(epoch), record["mAP"]) for (name, epoch), record in sorted(epochs.items()) if name == part and record["mAP"] is not None
        ]
        for part in ("student", "teacher")
    }
    parts = [Curve(name, sorted(points)) for name, points in losses.items()]
    if stage == "teacher":
        mark = None
    measured = [Curve(name, points) for name, points in scores.items() if points]
    return (
        f'<div class="l2d-curves">{_draw(f"Losses of the {stage}, weighted", parts, mark, logarithmic=True)}'
        f"{_draw('mAP on the pictures held out, percent', measured, mark, logarithmic=False)}</div>"
    )


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """No more points than a chart has room for, the newest among them."""
    return points[:: -max(1, len(points) // POINTS)][::-1]


def _draw(title: str, curves: Sequence[Curve], mark: int | None, logarithmic: bool) -> str:
    """One chart as SVG."""
    curves = [Curve(name, _thin([p for p in points if not logarithmic or p[1] > 0])) for name, points in curves]
    values = [value for curve in curves for _, value in curve.points]
    if not values:
        return f"<figure><figcaption>{title}: after the first epoch</figcaption></figure>"
    last = max(epoch for curve in curves for epoch, _ in curve.points)
    low, high = (math.log10(min(values)), math.log10(max(values))) if logarithmic else (0.0, max(100.0 if max(values) > 50 else 50.0, 1))
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5

    ends = [10**end if logarithmic else end for end in (high, low)]

    def place(epoch: float, value: float) -> str:
        level = math.log10(value) if logarithmic else value
        x = LEFT + (WIDTH - LEFT - 8) * epoch / last
        return f"{x:.1f},{HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 10) * (level - low) / (high - low):.1f}"

    lines = "" if mark is None else _draw_mark(place(mark, ends[1]).partition(",")[0])
    lines += "".join(_draw_line(curve, colour, place) for curve, colour in zip(curves, COLOURS, strict=False))
    axes = (
        f'<path d="M{LEFT} 8V{HEIGHT - BOTTOM}H{WIDTH - 6}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
        f'<text x="{LEFT - 5}" y="16" text-anchor="end">{ends[0]:.3g}</text>'
        f'<text x="{LEFT - 5}" y="{HEIGHT - BOTTOM}" text-anchor="end">{ends[1]:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">0</text>'
        f'<text x="{WIDTH - 6}" y="{HEIGHT - 6}" text-anchor="end">epoch {round(last, 1):g}</text>'
    )
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{escape(curve.name)} {curve.points[-1][1]:.3g}</span>'
        for curve, colour in zip(curves, COLOURS, strict=False)
        if curve.points
    )
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{axes}{lines}</svg>'
        f"<figcaption><b>{title}</b>{legend}</figcaption></figure>"
    )


def _draw_mark(x: str) -> str:
    return f'<path class="mark" d="M{x} 8V{HEIGHT - BOTTOM}" stroke="currentColor" stroke-opacity=".55" stroke-dasharray="3 3"/>'


def _draw_line(curve: Curve, colour: str, place: Any) -> str:
    points = [place(*point) for point in curve.points]
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>' for x, y in (point.split(",") for point in points[-1:]))
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def show_log(text: str) -> str:
    """The end of a log."""
    return f'<pre class="l2d-log" tabindex="0" aria-label="log">{escape(text) or "Nothing yet."}</pre>'
