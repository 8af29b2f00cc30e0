"""Runs the jobs of one folder: `python -m app worker`. Training happens in processes below this one, or on a cluster."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from app.cluster import Need, RayCluster
from app.endings import describe_end
from app.errors import RequestError, UnavailableError
from app.jobs import Job, LostClaimError, Progress, State
from app.lifelines import watch_parent
from app.logs import configure_logs
from app.places import Places
from app.processes import Exit, LocalMachine, Machine, MachineError, Training
from app.publication import find_models, publish
from app.queue import RESUME_HINT, Queue
from app.records import JobFolder, Summary, Task, remove_folder, sweep_removed
from app.seats import CLUSTER, CPU, hold_seat, list_gpus, list_seats, mark_seat, name_file
from app.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# What stays wrong is said so often.
WARN_SECONDS = 60.0


class Worker:
    """Takes one job after the other, or several at once on a cluster, until it is told to leave.

    Args:
        places: the folders.
        seat: "cpu", "cuda:0", ..., "ray"; every seat of this host has one worker at a time.
        machine: where the trainings run.
    """

    def __init__(self, places: Places, seat: str, machine: Machine):
        self.places, self.seat, self.machine = places, seat, machine
        self.prefix = f"{socket.gethostname()}/{seat}/"
        self.name = f"{self.prefix}{os.getpid()}"
        self._seat_file = name_file(places.state, seat)
        self.queue = Queue(places.state)
        # Leave at once, giving jobs up or leaving them to the next worker; or after the jobs that are running.
        self.leave, self.leave_after = threading.Event(), threading.Event()
        self._told, self._told_at = "", 0.0

    def run(self) -> None:
        """Work until told to leave."""
        with hold_seat(self.places.state, self.seat, self._leaving) as held:
            if not held:
                return
            for folder in (self.places.jobs, self.places.models):
                sweep_removed(folder)
            found = deque(self._take_over())
            with ThreadPoolExecutor(self.machine.slots) as pool:
                for slot in [pool.submit(self._serve, found) for _ in range(self.machine.slots)]:
                    slot.result()

    def leave_with_parent(self) -> None:
        """The app that started this worker is gone: leave after the jobs that are running, or at once if they go on without it."""
        logger.info("The app that started this worker is gone; leaving as soon as no job needs this worker.")
        (self.leave if self.machine.outlives_worker else self.leave_after).set()

    def _serve(self, found: deque[Job]) -> None:
        """One job after the other; first those that an earlier worker left running."""
        try:
            for job in _take_each(found):
                self.work(job, started=True)
            while not self._leaving():
                if not self.work_once():
                    self._pause()
        finally:
            # Also if something unforeseen happened: then all stop, and a fresh worker begins.
            self.leave_after.set()

    def work_once(self) -> bool:
        """Run the oldest job, if there is one and room for it."""
        try:
            job = self._claim()
            if job is not None:
                self.work(job)
            return job is not None
        finally:
            self.machine.release()

    def _claim(self) -> Job | None:
        try:
            self._tidy()
            waiting = self.queue.find_oldest()
            # Room first: the oldest job waits for it where all can see it, and nobody begins a newer one before.
            if waiting is not None and self.machine.reserve(waiting.spec.get("processes", 1)):
                return self.queue.claim(self.name, waiting.id)
        except UnavailableError as error:
            self._warn(error)
        return None

    def _take_over(self) -> list[Job]:
        """Whoever had this seat before is gone, since it is free: go on with what still runs, and give up the rest."""
        with contextlib.suppress(UnavailableError):  # then they will be found silent
            if self.machine.outlives_worker:
                return self.queue.adopt(self.prefix, self.name)
            for job in self.queue.give_up_seat(self.prefix):
                self._clear(job)
        return []

    def work(self, job: Job, started: bool = False) -> None:
        """Run one job to its end, whatever that is; `started` if an earlier worker began."""
        folder = JobFolder(self.places.jobs / job.id)
        logger.info("Job %s, attempt %d", job.id, job.attempts)
        try:
            end = self._train(job, folder, *self._find(job, folder)) if started else self._train(job, folder)
            if end is None:
                return
            state, reason = end
            models = publish(folder, self.places) if state == "succeeded" else ()
            self._insist(job, state, reason, models)
            if state == "succeeded":
                # Not before: whoever gives this job up meanwhile removes its models, and resume then needs what they came from.
                folder.forget_training()
        except (LostClaimError, UnavailableError) as error:
            logger.warning("%s", error)
        except MachineError as error:
            if error.passes:
                self._give_back(job, "interrupted", f"{error} Resume starts it again.", again=True)
            else:
                # It would end so again: whoever ordered it has to change something first.
                self._give_back(job, "failed", str(error))
        except OSError as error:
            self._give_back(job, "failed", f"The job's folder cannot be used: {error}.")

    def _give_back(self, job: Job, state: State, reason: str, again: bool = False) -> None:
        """End a job that this worker cannot go on with; with `again` it waits for its turn anew."""
        try:
            self._insist(job, state, reason, ())
            if again:
                self.queue.resume(job.id)
        except (LostClaimError, RequestError) as error:
            # Somebody else has it, or will find it: no reason for this worker to end.
            logger.warning("%s", error)

    def _find(self, job: Job, folder: JobFolder) -> tuple[bool, Training]:
        stop = folder.read_task().stop
        return stop, self.machine.find(job, stop)

    def _train(self, job: Job, folder: JobFolder, stop: bool = False, training: Training | None = None) -> tuple[State, str] | None:
        """One training, from its start to the state that it leaves the job in, and why; None if it goes on without this worker."""
        training = training or self._start(job, folder, stop)
        summary = Summary(job.attempts)
        seen: Exit | str = ""
        stays = False
        try:
            seen = self._watch(training, job, folder, summary, stop)
            stays = seen == "leave" and self.machine.outlives_worker
        finally:
            if not stays:
                training.end()
        if stays:
            return None
        # Not where the claim was lost: the job's next training may be writing there.
        folder.sweep()
        if isinstance(seen, Exit):
            return describe_end(seen, summary, stop)
        if seen == "stop":
            return self._train(job, folder, stop=True)
        if seen == "cancel":
            return "cancelled", "Cancelled; what was finished is kept, and resume goes on from there."
        return "interrupted", f"Its worker was stopped; {RESUME_HINT}"

    def _start(self, job: Job, folder: JobFolder, stop: bool) -> Training:
        folder.prepare()
        folder.write_task(Task(job.id, job.attempts, job.spec, self.machine.device, stop))
        return self.machine.start(job, folder, stop)

    def _watch(self, training: Training, job: Job, folder: JobFolder, summary: Summary, stop: bool) -> Exit | str:
        """Wait for a training to end by itself; returns earlier with what is asked of it: "cancel", "stop", "leave"."""
        while (ended := training.poll()) is None:
            if self._pause():
                return "leave"
            progress = summary.update(folder)
            request = self._beat(job, progress)
            if request == "cancel" or (request == "stop" and not stop and progress.best_epoch is not None):
                return request
        self._beat(job, summary.update(folder))
        return ended

    def _beat(self, job: Job, progress: Progress) -> str | None:
        """Keep the books, and see to the jobs of silent workers; returns what is asked of this one, if anything."""
        try:
            request = self.queue.beat(job.id, self.name, progress)
            self._tidy()
            return request
        except UnavailableError as error:
            # Somebody holds the file: the training goes on, the books are kept later.
            self._warn(error)
            return None

    def _insist(self, job: Job, state: State, reason: str, models: tuple[str, ...]) -> None:
        """Record the end, as soon as the queue can be written.

        Raises:
            UnavailableError: if this worker has to leave before.
        """
        while True:
            try:
                self.queue.finish(job.id, self.name, state, reason, models)
                logger.info("Job %s %s: %s", job.id, state, reason)
                return
            except UnavailableError as error:
                self._warn(error)
                if self._pause():
                    sentence = f"Job {job.id} {state}, which could not be written down: the next worker finds it running."
                    raise UnavailableError(sentence) from error

    def _tidy(self) -> None:
        """Give up the jobs of silent workers, and clear away what they left half done."""
        for job in self.queue.give_up_silent():
            self._clear(job)

    def _clear(self, job: Job) -> None:
        """See that nothing of a job that was given up goes on, and remove its temporary files, and models that nobody was told of."""
        self.machine.abandon(job)
        try:
            JobFolder(self.places.jobs / job.id).sweep()
            for model in find_models(self.places, job.id):
                if model.name not in job.models:
                    remove_folder(model)
        except OSError as error:
            # Another user's files, say: no reason for the job that this worker is at to fail.
            logger.warning("What job %s left half done cannot be removed: %s", job.id, error)

    def _warn(self, error: UnavailableError) -> None:
        """Say that the queue or the cluster cannot be used: now, and then once a minute, not at every try."""
        if str(error) != self._told or time.monotonic() - self._told_at > WARN_SECONDS:
            self._told, self._told_at = str(error), time.monotonic()
            logger.warning("%s", error)

    def _pause(self) -> bool:
        """Wait a moment, marking that this worker is not stuck; returns whether it has to leave at once."""
        mark_seat(self._seat_file)
        return self.leave.wait(POLL_SECONDS)

    def _leaving(self) -> bool:
        return self.leave.is_set() or self.leave_after.is_set()


def _take_each(found: deque[Job]) -> Iterator[Job]:
    """Jobs until none is left; other threads take theirs from the same ones."""
    with contextlib.suppress(IndexError):
        while True:
            yield found.popleft()


def create_machine(settings: Settings, seat: str) -> Machine:
    """Where the trainings of a worker run.

    Raises:
        MachineError: if there is no such thing here; every job that the worker took would fail.
    """
    if seat == CPU:
        return LocalMachine(settings.places, seat)
    if seat == CLUSTER:
        if not settings.engine:
            raise MachineError("No cluster is set: give its address with L2D_ENGINE=ray://HOST:PORT.")
        return RayCluster(settings.places, settings.engine, Need(settings.engine_cpus, settings.engine_gpus))
    gpus = list_gpus()
    if seat not in gpus:
        raise MachineError(f"This machine has no {seat}. Known are: {', '.join([CPU, *gpus])}.")
    return LocalMachine(settings.places, seat, gpus)


def main(settings: Settings, seat: str | None, attached: bool) -> int:
    """The entry of `python -m app worker`.

    Args:
        seat: the first one there is, if None.
        attached: leave when standard input ends; set by the app that supervises this worker.
    """
    configure_logs(settings.log)
    seat = seat or list_seats(settings)[0]
    try:
        worker = Worker(settings.places, seat, create_machine(settings, seat))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.leave.set())
        if attached:
            watch_parent(worker.leave_with_parent)
        logger.info("Working on %s for the jobs in %s", seat, settings.state)
        worker.run()
    except (UnavailableError, MachineError) as error:
        logger.error("%s", error)
        return 1
    return 0
