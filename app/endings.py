"""How a training's end is told: the job's state, and a sentence why."""

import signal

from app.jobs import Progress, State
from app.processes import Exit
from app.queue import RESUME_HINT
from app.records import Summary


def describe_end(ended: Exit, summary: Summary, stopped: bool) -> tuple[State, str]:
    """The state that a training's end means, and why."""
    code = ended.code
    if code == 0:
        return "succeeded", _describe_student(summary.progress, stopped)
    if summary.failure:
        return "failed", summary.failure
    if code is None:
        return "interrupted", f"{ended.message} {RESUME_HINT.capitalize()}"
    if code < 0:
        name = name_signal(-code)
        hint = " The system does so when memory runs out: order a smaller batch_size or image_size." if name == "SIGKILL" else ""
        return "failed", f"The training process was ended by {name} in epoch {summary.progress.epoch}.{hint} Resume goes on from there."
    return "failed", f"The training process ended with code {code}; its log says more. {ended.message}".rstrip()


def name_signal(number: int) -> str:
    """SIGKILL for 9; most of the real-time signals have a number alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _describe_student(progress: Progress, stopped: bool) -> str:
    """Which student a finished job keeps. Where nothing is held out, no epoch is better than another, and the last one goes as the best."""
    epoch, score = progress.best_epoch, progress.best_score
    measured = "" if score is None else f" (mAP {score:.1f} on the pictures held out)"
    if stopped:
        return f"Stopped as asked; the student of epoch {epoch} is kept{measured or ', its last finished one'}."
    if score is None:
        return "Trained to the end; the student of the last epoch is kept."
    return f"Trained to the end; the student of the last epoch is kept. The best epoch was {epoch}{measured}."
