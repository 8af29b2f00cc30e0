"""What the Distil tab shows of one job, as HTML: state and log. Whatever is shown is escaped."""

from html import escape

from app.jobs import Job
from app.orders import Order

CSS = """
/* One below the other, a few in sight. */
.l2d-jobs .wrap:has(> label) { flex-direction: column; flex-wrap: nowrap; gap: 2px; max-height: 200px; overflow-y: auto; }
.l2d-jobs .wrap label { flex: none; box-shadow: none; border: 0; padding: 5px 8px; background: none; }
.l2d-jobs .wrap label.selected { background: var(--background-fill-secondary); }
.l2d-job { display: grid; grid-template-columns: minmax(0, 1fr); gap: 6px; }
.l2d-jobs .wrap label, .l2d-job { overflow-wrap: anywhere; }
.l2d-job h2, .l2d-job p { margin: 0; } .l2d-job h2 { font-size: 16px; }
.l2d-state { display: inline-block; padding: 1px 9px; border-radius: 9px; font-size: 13px; font-weight: 700; color: #fff !important; }
.l2d-state { background: #57534e; }
.l2d-state.running { background: #0f766e; } .l2d-state.succeeded { background: #15803d; } .l2d-state.failed { background: #b91c1c; }
.l2d-state.interrupted { background: #b45309; }
.l2d-job progress { width: 100%; height: 10px; appearance: none; border: 0; border-radius: 5px; overflow: hidden; }
.l2d-job progress, .l2d-job progress::-webkit-progress-bar { background: var(--border-color-primary); }
.l2d-job progress::-webkit-progress-value { background: #0d9488; } .l2d-job progress::-moz-progress-bar { background: #0d9488; }
/* Where a theme takes fills away, the bar would be empty. */
@media (forced-colors: active) { .l2d-job progress { appearance: auto; forced-color-adjust: none; } }
.l2d-command textarea { font-family: var(--font-mono); font-size: 12px; line-height: 1.5; }
.l2d-log { max-height: 260px; overflow: auto; margin: 0; padding: 8px; font-size: 12px; white-space: pre-wrap;
  background: var(--background-fill-secondary); }
"""


def show_status(job: Job, wait: str = "") -> str:
    """State, reason, progress bar and time left of a job.

    Args:
        wait: why it may wait for ever.
    """
    name = escape(Order.model_construct(**job.spec).name)
    lines = [f'<h2>{name} <span class="l2d-state {job.state}">{job.state}</span></h2>']
    if job.state == "running":
        lines.append(f'<progress max="1" value="{job.progress:.4f}" aria-label="progress"></progress>')
        lines.append(f"<p>{_describe_running(job)}</p>")
    elif job.state == "queued":
        lines.append(f"<p>{' '.join(filter(None, ('Waiting for its turn.', escape(wait))))}</p>")
    else:
        lines.append(f"<p>{escape(job.reason)}</p>")
    if job.models:
        names = ", ".join(f"<b>{escape(model)}</b>" for model in job.models)
        # Models have long names; Compare lists them by their titles, with as much of the job's id beside it.
        lines.append(f"<p>Compare marks it with ({escape(job.id[:6])}). As a teacher and in the API: {names}.</p>")
    tries = f", attempt {job.attempts}" if job.attempts > 1 else ""
    lines.append(f"<p><small>Job {escape(job.id)}{tries}</small></p>")
    return f'<div class="l2d-job">{"".join(lines)}</div>'


def _describe_running(job: Job) -> str:
    what = {"teacher": "Training the teacher", "student": "Training the student"}.get(job.stage)
    place = f"{what}, epoch {max(job.epoch, 1)}: {100 * job.progress:.0f}%" if what else "Starting"
    place = "Trained; scoring on the test pictures" if job.stage == "scores" else place
    # A student that is there to be kept need not be waited for.
    stopping = " Stopping after the student's first epoch." if job.best_epoch is None else " Stopping."
    asked = {"cancel": " Cancelling.", "stop": stopping}.get(job.request or "", "")
    return f"{place}{_describe_left(job)}.{asked}"


def describe_state(job: Job) -> str:
    """State of a job in a list; of a running one, how far it is."""
    return f"running, {100 * job.progress:.0f}%{_describe_left(job)}" if job.state == "running" else job.state


def _describe_left(job: Job) -> str:
    # Nobody knows how long the scores will take.
    return "" if job.seconds_left is None or job.progress == 1 else f", about {describe_seconds(job.seconds_left)} left"


def describe_seconds(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def show_log(text: str) -> str:
    """The end of a log."""
    return f'<pre class="l2d-log" tabindex="0" role="region" aria-label="log">{escape(text) or "Empty so far."}</pre>'
