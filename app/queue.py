"""The queue of distillation jobs: one row a job; every change of state is one statement."""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.jobs import ENDED, RESUMABLE, STATES, Job, JobStateError, KeyReuseError, LostClaimError, Progress, State, UnknownJobError
from app.silence import Sign, Silence
from app.table import COLUMNS, connect, create_table, fetch_jobs

# A running job whose worker gave no sign of life for this long, while somebody watched, is given up.
SILENCE_SECONDS = 30.0
# The end of a sentence on why a job ended before its time.
RESUME_HINT = "resume goes on after the last finished epoch."


class Queue:
    """The jobs of one folder, shared by any number of processes and threads.

    Args:
        folder: holds the SQLite file; made when missing.
        clock: seconds since 1970.
        silence: of the workers, as this process sees it.

    Raises:
        UnavailableError: from every method, while the file cannot be read or written.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time, silence: Silence | None = None):
        self.path = create_table(folder)
        self._clock, self._silence = clock, silence or Silence()

    def submit(self, spec: dict[str, Any], key: str | None = None) -> Job:
        """Put a job into the queue.

        Args:
            key: the same key gives the same job, however often it is sent.

        Raises:
            KeyReuseError: if that key came with another order before.
        """
        text = json.dumps(spec, allow_nan=False)
        new = (secrets.token_hex(6), "queued", text, key, self._clock())
        statement = "INSERT INTO jobs (id, state, spec, idempotency_key, created) VALUES (?, ?, ?, ?, ?)"
        # One statement, also for a known key: between two of them that job may be deleted. What changes nothing makes it return the row.
        (job,) = self._query(f"{statement} ON CONFLICT (idempotency_key) DO UPDATE SET state = state RETURNING {COLUMNS}", new)
        sent = json.loads(text)
        # Of what only one of them tells, another revision wrote the other.
        if job.id != new[0] and any(job.spec[name] != sent[name] for name in job.spec.keys() & sent.keys()):
            raise KeyReuseError(f"The idempotency key {key!r} belongs to job {job.id}, which was ordered differently; send a new key.")
        return job

    def find(self, job: str) -> Job:
        """Look a job up.

        Raises:
            UnknownJobError: if there is none of that id.
        """
        found = self._query(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", (job,))
        if not found:
            raise UnknownJobError(f"There is no job {job!r}. GET /v1/jobs lists those that exist.")
        return found[0]

    def page(self, limit: int, before: int | None = None) -> list[Job]:
        """The newest jobs; with `before` those whose number is smaller."""
        statement = f"SELECT {COLUMNS} FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?"
        return self._query(statement, (2**62 if before is None else before, limit))

    def count(self) -> dict[str, int]:
        """How many jobs are in each state."""
        counts: dict[str, int] = dict.fromkeys(STATES, 0)
        with connect(self.path) as connection:
            return counts | dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())

    def find_oldest(self) -> Job | None:
        """The oldest waiting job, if any waits."""
        return next(iter(self._query(f"SELECT {COLUMNS} FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1", ())), None)

    def claim(self, worker: str, job: str) -> Job | None:
        """Take a waiting job; None if it does not wait any more. No two workers ever get the same one."""
        claimed = self._query(
            "UPDATE jobs SET state = 'running', worker = ?, attempts = attempts + 1, started = coalesce(started, ?), heartbeat = ?"
            f" WHERE id = ? AND state = 'queued' RETURNING {COLUMNS}",
            (worker, self._clock(), self._clock(), job),
        )
        return claimed[0] if claimed else None

    def beat(self, job: str, worker: str, progress: Progress) -> str | None:
        """Give a sign of life and say how far it is; returns what is asked of the worker: "cancel", "stop", or nothing.

        Raises:
            LostClaimError: if the job is no longer this worker's.
        """
        told = progress._asdict() | {"versions": json.dumps(progress.versions)}
        assignments = ", ".join(f"{name} = ?" for name in told)
        return self._update_own(job, worker, f"heartbeat = ?, {assignments}", (self._clock(), *told.values())).request

    def finish(self, job: str, worker: str, state: State, reason: str, models: tuple[str, ...] = ()) -> None:
        """Record how a job ended.

        Raises:
            LostClaimError: if the job is no longer this worker's.
        """
        assignments = (
            "state = ?, reason = ?, models = ?, finished = ?, request = NULL, seconds_left = NULL,"
            " progress = CASE ? WHEN 'succeeded' THEN 1.0 ELSE progress END"
        )
        self._update_own(job, worker, assignments, (state, reason, json.dumps(models), self._clock(), state))

    def cancel(self, job: str) -> Job:
        """Cancel a job: at once if nobody runs it, or its worker was seen to be silent for too long; else its worker is asked to.

        Cancelling twice changes nothing.

        Raises:
            UnknownJobError, JobStateError: if there is none, or it succeeded or failed already.
        """
        changed = self._query(
            "UPDATE jobs SET request = CASE state WHEN 'running' THEN 'cancel' END,"
            " reason = CASE WHEN state IN ('running', 'cancelled') THEN reason ELSE 'Cancelled before its end.' END,"
            " finished = CASE state WHEN 'running' THEN NULL ELSE coalesce(finished, ?) END,"
            " state = CASE state WHEN 'running' THEN 'running' ELSE 'cancelled' END"
            f" WHERE id = ? AND state IN ('queued', 'running', 'interrupted', 'cancelled') RETURNING {COLUMNS}",
            (self._clock(), job),
        )
        return self._end_if_unheard(changed[0]) if changed else self._refuse(job, "cancelled", ("queued", "running", "interrupted"))

    def stop(self, job: str) -> Job:
        """Ask the worker to stop and keep the best student so far; if it was seen to be silent for too long, the job is interrupted.

        Raises:
            UnknownJobError, JobStateError: if there is none, or it is not running.
        """
        changed = self._query(
            f"UPDATE jobs SET request = coalesce(request, 'stop') WHERE id = ? AND state = 'running' RETURNING {COLUMNS}", (job,)
        )
        return self._end_if_unheard(changed[0]) if changed else self._refuse(job, "stopped", ("running",))

    def resume(self, job: str) -> Job:
        """Queue an interrupted, failed or cancelled job again; it goes on after its last finished epoch.

        Raises:
            UnknownJobError, JobStateError: if there is none, or it cannot be resumed.
        """
        changed = self._query(
            "UPDATE jobs SET state = 'queued', reason = '', finished = NULL, worker = NULL, heartbeat = NULL"
            f" WHERE id = ? AND state IN {RESUMABLE} RETURNING {COLUMNS}",
            (job,),
        )
        return changed[0] if changed else self._refuse(job, "resumed", RESUMABLE)

    def delete(self, job: str) -> Job:
        """Forget a job that has ended; its folder is the caller's to remove.

        Raises:
            UnknownJobError, JobStateError: if there is none, or it has not ended.
        """
        gone = self._query(f"DELETE FROM jobs WHERE id = ? AND state IN {ENDED} RETURNING {COLUMNS}", (job,))
        return gone[0] if gone else self._refuse(job, "deleted", ENDED)

    def give_up_silent(self) -> list[Job]:
        """Mark the running jobs whose workers have been silent for too long; returns them. Knows of no silence before its first call."""
        return [job for sign in self._find_silent() for job in self._give_up(sign)]

    def give_up_unheard(self) -> list[Job]:
        """Mark those of them whose workers were asked for something, which nobody would do any more; returns them.

        For who runs no jobs: a training on a cluster may go on without its worker, as long as nobody wants it to end.
        """
        return [job for sign in self._find_silent() for job in self._give_up(sign, "request IS NOT NULL")]

    def give_up_seat(self, seat: str) -> list[Job]:
        """Mark the running jobs of the workers whose names begin so, and who are known to be gone; returns them."""
        return self._interrupt("instr(worker, ?) = 1", (seat,), "Its worker died")

    def adopt(self, seat: str, worker: str) -> list[Job]:
        """Give the running jobs of the workers whose names begin so, and who are known to be gone, to their successor; returns them."""
        return self._query(
            f"UPDATE jobs SET worker = ?, heartbeat = ? WHERE state = 'running' AND instr(worker, ?) = 1 RETURNING {COLUMNS}",
            (worker, self._clock(), seat),
        )

    def _update_own(self, job: str, worker: str, assignments: str, values: tuple[Any, ...]) -> Job:
        mine = self._query(
            f"UPDATE jobs SET {assignments} WHERE id = ? AND worker = ? AND state = 'running' RETURNING {COLUMNS}", (*values, job, worker)
        )
        if not mine:
            raise LostClaimError(f"Job {job} is no longer run by {worker}.")
        return mine[0]

    def _find_silent(self) -> list[Sign]:
        running = self._query(f"SELECT {COLUMNS} FROM jobs WHERE state = 'running'", ())
        return self._silence.find([Sign(job.id, job.worker or "", job.heartbeat or 0.0) for job in running], SILENCE_SECONDS)

    def _give_up(self, sign: Sign, condition: str = "true") -> list[Job]:
        # Only if there was no other sign since.
        return self._interrupt(f"id = ? AND worker = ? AND heartbeat = ? AND {condition}", sign, "Its worker gave no sign of life any more")

    def _end_if_unheard(self, job: Job) -> Job:
        return next((gone for gone in self.give_up_unheard() if gone.id == job.id), job)

    def _interrupt(self, condition: str, values: tuple[str | float, ...], cause: str) -> list[Job]:
        gone, unstopped = f"{cause}; {RESUME_HINT}", f"{cause}, so it could not be stopped as asked; {RESUME_HINT} Stop it again then."
        return self._query(
            "UPDATE jobs SET state = CASE request WHEN 'cancel' THEN 'cancelled' ELSE 'interrupted' END, finished = ?, seconds_left = NULL,"
            " reason = CASE request WHEN 'cancel' THEN 'Cancelled.' WHEN 'stop' THEN ? ELSE ? END, request = NULL"
            f" WHERE state = 'running' AND {condition} RETURNING {COLUMNS}",
            (self._clock(), unstopped, gone, *values),
        )

    def _refuse(self, job: str, verb: str, states: tuple[State, ...]) -> Job:
        state = self.find(job).state
        raise JobStateError(f"Only a job that is {' or '.join(states)} can be {verb}; job {job} is {state}.")

    def _query(self, statement: str, values: tuple[Any, ...]) -> list[Job]:
        return fetch_jobs(self.path, statement, values)
