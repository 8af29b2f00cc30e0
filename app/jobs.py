"""What a job is: its states, its row, how far it is, and what may be refused about it."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, get_args

from app.errors import RequestError

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]
STATES: tuple[State, ...] = get_args(State)
# Statements of SQL hold these as they are: Python writes tuples of several words alike.
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled", "interrupted")
RESUMABLE: tuple[State, ...] = ("interrupted", "failed", "cancelled")
# What a job trains, in this order.
TEACHER, STUDENT = "teacher", "student"


class UnknownJobError(RequestError):
    """No job of that id."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_job"


class UnknownProbeError(RequestError):
    """A job that has no probes of that name, or not yet, or not any more."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_probe"


class JobStateError(RequestError):
    """Something was asked of a job that its state does not allow."""

    status = HTTPStatus.CONFLICT
    code = "wrong_state"


class KeyReuseError(RequestError):
    """An idempotency key came again with another order."""

    status = HTTPStatus.CONFLICT
    code = "idempotency_key_reused"


class LostClaimError(RuntimeError):
    """The job is no longer this worker's: it was silent for too long, and the job was given up."""


@dataclass(frozen=True)
class Job:
    """One job, as its row says.

    Attributes:
        number: grows from job to job; the order of the queue.
        spec: what was ordered, plain values.
        created, started, finished, heartbeat: seconds since 1970.
        worker: who runs it, or ran it last.
        attempts: how often a worker took it.
        request: "cancel" or "stop", while a worker has yet to obey it.
        reason: why it ended as it did, a sentence.
        progress: 0 to 1.
        stage: "teacher", "student", "scores".
        best_score, best_epoch: the student's highest mAP on the pictures held out, in percent.
        models: names of what it put into the catalogue.
    """

    number: int
    id: str
    state: State
    spec: dict[str, Any]
    created: float
    started: float | None
    finished: float | None
    heartbeat: float | None
    worker: str | None
    attempts: int
    request: str | None
    reason: str
    progress: float
    seconds_left: float | None
    stage: str
    epoch: int
    best_score: float | None
    best_epoch: int | None
    versions: dict[str, str]
    models: list[str]


class Progress(NamedTuple):
    """How far a job is; what a worker reports with its heartbeat."""

    progress: float = 0.0
    seconds_left: float | None = None
    stage: str = ""
    epoch: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    versions: dict[str, str] = {}  # noqa: RUF012 - never changed
