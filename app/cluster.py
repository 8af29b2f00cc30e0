"""Trainings on a Ray cluster: each is a Ray job that runs the command of a local one, in folders that all machines share."""

import json
import logging
import math
import shlex
import socket
import threading
import time
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from app.group import LOST
from app.jobs import Job
from app.places import SOURCE_TREE, Places
from app.processes import Exit, MachineError, Training, write_command
from app.records import JobFolder

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

logger = logging.getLogger(__name__)

# Jobs handed to the cluster at once; Ray starts them as room becomes free, on whichever of its machines.
SLOTS = 8
# A cluster that does not answer for so long has lost its trainings.
PATIENCE_SECONDS = 60.0
# Ray asks a process to end, and kills it after three seconds.
STOP_SECONDS = 4.0
POLL_SECONDS = 0.2
ANSWER_SECONDS = 3.0
# Characters of what Ray says about an end that are kept.
MESSAGE = 300
# The log is read as text, and every line of every process counts.
PLAIN_LOG = {"RAY_COLOR_PREFIX": "0", "RAY_DEDUP_LOGS": "0"}


class Need(NamedTuple):
    """What one training process asks of the cluster."""

    cpus: float
    gpus: float


class RayCluster:
    """A Ray cluster whose machines all see the app's folders, and this installation, under the same paths.

    Every attempt of a job has one name in the cluster. So whoever comes later finds what an earlier worker started.

    Args:
        address: ray://HOST:PORT; the port of the cluster's job server (8265 unless told otherwise), or of Ray Client (10001).
    """

    slots = SLOTS
    outlives_worker = True

    def __init__(self, places: Places, address: str, need: Need):
        self.places, self.address, self.need = places, address, need
        self.device = "auto" if need.gpus else "cpu"
        # Of several jobs' threads one asks and connects for all; whoever asks connects within.
        self._lock = threading.RLock()
        self._client: JobSubmissionClient | None = None
        self._ready, self._asked = False, -math.inf

    def reserve(self, processes: int) -> bool:
        """Whether the cluster answers, asked every few seconds; as long as it does not, jobs wait in the queue. Room is its own affair."""
        with self._lock:
            if time.monotonic() - self._asked > ANSWER_SECONDS:
                self._ready, self._asked = self._answers(), time.monotonic()
            return self._ready

    def _answers(self) -> bool:
        try:
            self.connect().get_version()
        except (OSError, RuntimeError) as error:
            logger.warning("The cluster at %s does not answer: %s", self.address, error)
            self._client = None
            return False
        return True

    def release(self) -> None:
        """Nothing to do."""

    def start(self, job: Job, folder: JobFolder, stop: bool) -> Training:
        """Submit a training."""
        if job.attempts > 1:
            self._end(job, job.attempts - 1)
        name = name_attempt(job.id, job.attempts, stop)
        words, asked = self.plan(job)
        command = shlex.join(write_command(words))
        try:
            self.connect().submit_job(
                entrypoint=f"exec {command} >> {shlex.quote(str(folder.log))} 2>&1",
                submission_id=name,
                runtime_env={"env_vars": self.make_environment()},
                entrypoint_num_cpus=asked.cpus,
                entrypoint_num_gpus=asked.gpus or None,
                metadata={"l2d_job": job.id},
            )
        except (OSError, RuntimeError) as error:
            with self._lock:
                self._ready, self._asked = False, time.monotonic()
            raise MachineError(f"The cluster at {self.address} did not take it: {error}.", isinstance(error, OSError)) from error
        return RayTraining(self, name)

    def plan(self, job: Job) -> tuple[list[str], Need]:
        """The words after `python -m app`, and what that process needs: a group's does nothing but ask for its processes' room."""
        count = job.spec.get("processes", 1)
        if count == 1:
            return ["job", job.id], self.need
        return ["group", job.id, f"--processes={count}", f"--cpus={self.need.cpus}", f"--gpus={self.need.gpus}"], Need(0, 0)

    def find(self, job: Job, stop: bool) -> Training:
        """What an earlier worker submitted for this attempt."""
        return RayTraining(self, name_attempt(job.id, job.attempts, stop))

    def abandon(self, job: Job) -> None:
        """Stop whatever the last attempt left in the cluster."""
        self._end(job, job.attempts)

    def make_environment(self) -> dict[str, str]:
        """What a training is told beside its cluster's own environment: where things are, and nothing of this process."""
        return PLAIN_LOG | {"L2D_CACHE": str(self.places.cache), "PYTHONPATH": str(SOURCE_TREE)} | self.places.as_environment()

    def connect(self) -> "JobSubmissionClient":
        """The client of the cluster's job server.

        Raises:
            OSError, RuntimeError: if it does not answer.
        """
        # Only here: whoever has no cluster needs no Ray.
        from ray.job_submission import JobSubmissionClient

        with self._lock:
            if self._client is None:
                self._client = JobSubmissionClient(find_job_server(self.address))
            return self._client

    def _end(self, job: Job, attempt: int) -> None:
        for stop in (False, True):
            RayTraining(self, name_attempt(job.id, attempt, stop)).end()


class RayTraining:
    """One submission, by its name."""

    def __init__(self, cluster: RayCluster, name: str):
        self._cluster, self.name = cluster, name
        self._answered = time.monotonic()

    def poll(self) -> Exit | None:
        """How it ended; None as long as it has not, or the cluster may only be slow to answer."""
        try:
            info: Any = self._cluster.connect().get_job_info(self.name)
        except (OSError, RuntimeError) as error:
            return self._wait_for_answer(error)
        self._answered = time.monotonic()
        if not info.status.is_terminal():
            return None
        if info.status == "SUCCEEDED":
            return Exit(0)
        # The last line alone: Ray also tells all that the process printed.
        code, message = info.driver_exit_code, (info.message or "").strip().rpartition("\n")[2][:MESSAGE]
        if info.status == "STOPPED":
            return Exit(None, "It was stopped in the cluster.")
        if code == LOST:
            return Exit(None, "One of its processes or machines was lost.")
        return Exit(code, message) if code is not None else Exit(None, f"The cluster lost it: {message}")

    def _wait_for_answer(self, error: Exception) -> Exit | None:
        if "status code 404" in str(error):
            return Exit(None, "The cluster does not know it any more.")
        if time.monotonic() - self._answered < PATIENCE_SECONDS:
            return None
        return Exit(None, f"The cluster at {self._cluster.address} has not answered for {PATIENCE_SECONDS:.0f} seconds.")

    def end(self) -> None:
        """Stop it, and wait until it is gone.

        Ray stops what still waits for room only when there is room; and a cluster that does not answer stops nothing. Such a training
        sees for itself that it is unwanted.
        """
        deadline = time.monotonic() + STOP_SECONDS
        try:
            client = self._cluster.connect()
            status = client.get_job_status(self.name)
            if status.is_terminal():
                return
            client.stop_job(self.name)
            while status != "PENDING" and not client.get_job_status(self.name).is_terminal() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        except (OSError, RuntimeError) as error:
            logger.info("%s cannot be stopped: %s", self.name, error)


def name_attempt(job: str, attempt: int, stop: bool) -> str:
    """What an attempt is called in the cluster."""
    return f"l2d-{job}-{attempt}{'-stop' if stop else ''}"


def find_job_server(address: str) -> str:
    """What Ray's client of jobs takes for ray://HOST:PORT.

    If the port answers as a job server, that is it. Else it is the port of Ray Client, which is asked once where the job server is.

    Raises:
        OSError: at once if nobody listens there; Ray Client would try for a minute.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    server = address.replace("ray://", "http://", 1)
    try:
        with urllib.request.urlopen(f"{server}/api/version", timeout=ANSWER_SECONDS) as answer:
            json.load(answer)
    except (OSError, ValueError, HTTPException):
        return address
    return server
