"""Runs the jobs of one folder, one at a time: `python -m app worker`. Training happens in a process below this one."""

import contextlib
import fcntl
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from app.errors import UnavailableError
from app.jobs import Job, LostClaimError, Progress, Queue, State
from app.places import Places
from app.records import JobFolder, Summary, remove_folder, sweep_temporary

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# What a training process gets between being asked and being killed.
GRACE_SECONDS = 2.0
# What training needs of the environment; everything else, secrets above all, stays out.
PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "L2D_CACHE", "PYTHONDONTWRITEBYTECODE"),
)
ENTRY = "app"
SOURCE_TREE = Path(__file__).resolve().parent.parent


class Worker:
    """Takes one job after the other until it is told to leave.

    Args:
        places: the folders.
        device: "cpu", "cuda:0", ...; every device of a machine has one worker at a time.
    """

    def __init__(self, places: Places, device: str):
        self.places, self.device = places, device
        self.seat = f"{socket.gethostname()}/{device}/"
        self.name = f"{self.seat}{os.getpid()}"
        self.queue = Queue(places.state)
        # Leave at once, giving the job up; or after the job that is running.
        self.leave, self.leave_after = threading.Event(), threading.Event()

    def run(self) -> None:
        """Work until told to leave."""
        with hold_device(self.places.state, self.device, self._leaving):
            self._take_over()
            while not self._leaving():
                try:
                    tidy(self.queue, self.places)
                    job = self.queue.claim(self.name)
                except UnavailableError as error:
                    logger.warning("%s", error)
                    job = None
                if job is None:
                    self.leave.wait(POLL_SECONDS)
                else:
                    self.work(job)

    def _take_over(self) -> None:
        """Whoever had this seat before is gone, since the device is free: give up what they were running."""
        with contextlib.suppress(UnavailableError):  # then they will be found silent
            for job in self.queue.give_up_seat(self.seat):
                clear(job, self.places)

    def work(self, job: Job) -> None:
        """Run one job to its end, whatever that is."""
        folder = JobFolder(self.places.jobs / job.id)
        logger.info("Job %s, attempt %d", job.id, job.attempts)
        try:
            state, reason = self._train(job, folder)
            models = publish(folder, self.places) if state == "succeeded" else ()
            self._insist(job, state, reason, models)
        except LostClaimError as error:
            logger.warning("%s", error)
        except OSError as error:
            self._insist(job, "failed", f"The job's folder cannot be used: {error}.", ())

    def _train(self, job: Job, folder: JobFolder, stop: bool = False) -> tuple[State, str]:
        """One process, from its start to the state that it leaves the job in, and why."""
        folder.prepare()
        task = {"job": job.id, "attempt": job.attempts, "spec": job.spec, "device": self.device, "stop": stop}
        (folder.path / "order.json").write_text(json.dumps(task), encoding="utf-8")
        summary = Summary()
        with folder.log.open("ab") as log:
            child = start_process(self.places, ["job", job.id], log)
        try:
            request = self._watch(child, job, folder, summary, stop)
        finally:
            _end(child)
            folder.sweep()
        if request == "cancel":
            return "cancelled", "Cancelled; what was finished is kept, and resume goes on from there."
        if request == "leave":
            return "interrupted", "Its worker was stopped; resume goes on after the last finished epoch."
        if request == "stop":
            return self._train(job, folder, stop=True)
        return describe_end(child.returncode, summary, stop)

    def _watch(self, child: subprocess.Popen[bytes], job: Job, folder: JobFolder, summary: Summary, stop: bool) -> str | None:
        """Wait for a process to end by itself; returns earlier with what is asked of it."""
        while child.poll() is None:
            if self.leave.wait(POLL_SECONDS):
                return "leave"
            progress = summary.update(folder)
            try:
                request = self.queue.beat(job.id, self.name, progress)
                tidy(self.queue, self.places)
            except UnavailableError as error:
                # Somebody holds the file: the training goes on, the books are kept later.
                logger.warning("%s", error)
                continue
            if request == "cancel" or (request == "stop" and not stop and can_stop(folder)):
                return request
        self._beat_once_more(job, summary.update(folder))
        return None

    def _beat_once_more(self, job: Job, progress: Progress) -> None:
        try:
            self.queue.beat(job.id, self.name, progress)
        except UnavailableError as error:
            logger.warning("%s", error)

    def _insist(self, job: Job, state: State, reason: str, models: tuple[str, ...]) -> None:
        """Record the end, as soon as the queue can be written."""
        while True:
            try:
                self.queue.finish(job.id, self.name, state, reason, models)
            except UnavailableError as error:
                logger.warning("%s", error)
                time.sleep(POLL_SECONDS)
                continue
            logger.info("Job %s %s: %s", job.id, state, reason)
            return

    def _leaving(self) -> bool:
        return self.leave.is_set() or self.leave_after.is_set()


def publish(folder: JobFolder, places: Places) -> tuple[str, ...]:
    """Move what a job laid out into the catalogue, each model in one step; returns their names."""
    places.models.mkdir(parents=True, exist_ok=True)
    names = []
    for model in sorted((folder.path / "ready").iterdir()):
        remove_folder(places.models / model.name)
        model.rename(places.models / model.name)
        names.append(model.name)
    # The catalogue has them now; what was needed to resume is not needed any more.
    for leftover in ("ready", "teacher", "student", "best-teacher", "best-student"):
        remove_folder(folder.path / leftover)
    return tuple(names)


def tidy(queue: Queue, places: Places) -> None:
    """Give up the jobs of silent workers, and clear away what they left half done."""
    for job in queue.give_up_silent():
        clear(job, places)


def clear(job: Job, places: Places) -> None:
    """Remove what an attempt that was killed left behind: temporary files, and models that nobody was told of."""
    sweep_temporary(places.jobs / job.id)
    for model in find_models(places, job.id):
        if model.name not in job.models:
            remove_folder(model)


def find_models(places: Places, job: str) -> list[Path]:
    """The models of a job in the catalogue."""
    return sorted(places.models.glob(f"*-{job}"))


def can_stop(folder: JobFolder) -> bool:
    """Whether there is a student to keep."""
    return (folder.path / "best-student").exists()


def describe_end(code: int, summary: Summary, stopped: bool) -> tuple[State, str]:
    """The state that a training process's exit means, and why."""
    best = summary.progress.best_score
    score = "" if best is None else f" (mAP {best:.1f} on the pictures held out)"
    if code == 0 and stopped:
        return "succeeded", f"Stopped as asked; the student of epoch {summary.progress.best_epoch} is kept{score}."
    if code == 0:
        return "succeeded", f"Trained to the end; the best epoch was {summary.progress.best_epoch}{score}."
    if summary.failure:
        return "failed", summary.failure
    if code < 0:
        name = signal.Signals(-code).name
        hint = " The system does so when memory runs out: order a smaller batch_size or image_size." if name == "SIGKILL" else ""
        return "failed", f"The training process was ended by {name} in epoch {summary.progress.epoch}.{hint} Resume goes on from there."
    return "failed", f"The training process ended with code {code}; its log says more."


def start_process(places: Places, words: list[str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start another process of this app, out of reach of the terminal's signals, with nothing of the environment that it does not need.

    It holds the other end of a pipe, and so learns when this process is gone.
    """
    return subprocess.Popen(
        [sys.executable, "-m", ENTRY, *words],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=make_environment(os.environ, places),
        start_new_session=True,
    )


def make_environment(environment: Mapping[str, str], places: Places) -> dict[str, str]:
    """The environment of workers and training processes."""
    kept = {name: environment[name] for name in PASSED_ON if name in environment}
    return {"L2D_CACHE": str(places.cache)} | kept | places.as_environment() | {"PYTHONPATH": str(SOURCE_TREE)}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Make sure that a process is gone: everything that it writes is renamed into place, so it may be ended anywhere."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdin is not None:
        child.stdin.close()


@contextlib.contextmanager
def hold_device(state: Path, device: str, leaving: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other worker of this machine uses the device; the system lets go of it when the process ends, however it does."""
    with (state / f"{socket.gethostname()}-{device.replace(':', '')}.lock").open("ab") as file:
        for attempt in itertools.count():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    logger.info("Another worker of this machine has %s; standing by.", device)
                if leaving():
                    break
                time.sleep(POLL_SECONDS)
        yield


def list_devices() -> list[str]:
    """The devices that jobs can run on: every GPU, or the CPU where there is none."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def leave_with_parent(worker: Worker) -> None:
    """Have a worker that the app started leave after its job, when the app is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        logger.info("The app that started this worker is gone; leaving after the job that is running.")
        worker.leave_after.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(places: Places, device: str, attached: bool) -> int:
    """The entry of `python -m app worker`.

    Args:
        attached: leave when standard input ends; set by the app that supervises this worker.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s worker: %(message)s", stream=sys.stderr)
    try:
        worker = Worker(places, device)
    except UnavailableError as error:
        logger.error("%s", error)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.leave.set())
    if attached:
        leave_with_parent(worker)
    logger.info("Working on %s for the jobs in %s", device, places.state)
    worker.run()
    return 0
