"""The queue: every job is taken once, and every state is left only by the doors that it has."""

import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.jobs import STATES, Job, JobStateError, KeyReuseError, LostClaimError, Progress, State, UnknownJobError
from app.queue import SILENCE_SECONDS, Queue
from app.silence import Silence

SPEC = {"data": "shapes", "epochs": 3}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Queue:
    return Queue(tmp_path, clock, Silence(clock))


def watch(look: Callable[[], list[Job]], clock: Clock, seconds: float) -> list[str]:
    """Let time pass while somebody looks every second; gives the jobs that were given up."""
    gone = [job.id for job in look()]
    for _ in range(round(seconds)):
        clock.now += 1
        gone += [job.id for job in look()]
    return gone


def claim(queue: Queue, worker: str) -> Job | None:
    """The oldest waiting job, as workers take it; another one may be faster."""
    while (oldest := queue.find_oldest()) is not None:
        if (taken := queue.claim(worker, oldest.id)) is not None:
            return taken
    return None


def end(queue: Queue, state: str) -> str:
    """A job in that state."""
    job = queue.submit(SPEC).id
    if state == "queued":
        return job
    claimed = claim(queue, "w")
    assert claimed is not None
    if state == "interrupted":
        queue.give_up_seat("w")
    elif state != "running":
        queue.finish(job, "w", state, "so")
    return job


def test_a_new_job_waits_and_holds_what_was_ordered(queue: Queue):
    job = queue.submit(SPEC)
    assert (job.state, job.spec, job.created, job.attempts, job.models) == ("queued", SPEC, 1000.0, 0, [])
    assert queue.find(job.id) == job


def test_jobs_are_claimed_in_order_and_each_once(queue: Queue):
    first, second = queue.submit(SPEC), queue.submit(SPEC)
    assert [job.id for job in (claim(queue, "a"), claim(queue, "b")) if job] == [first.id, second.id]
    assert claim(queue, "c") is None


def claim_all(folder: Path, worker: str, start, taken) -> None:
    queue = Queue(folder)
    start.wait()
    while job := claim(queue, worker):
        taken.put((job.id, worker))
    taken.put((None, worker))


# Since Python 3.12 a process that has threads, as those of earlier tests, is warned when it forks.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_eight_processes_claim_200_jobs_once_each(tmp_path: Path):
    queue = Queue(tmp_path)
    expected = sorted(queue.submit(SPEC).id for _ in range(200))
    context = multiprocessing.get_context("fork")
    start, taken = context.Event(), context.Queue()
    workers = [context.Process(target=claim_all, args=(tmp_path, f"w{number}", start, taken)) for number in range(8)]
    for worker in workers:
        worker.start()
    start.set()
    claims, running = [], len(workers)
    while running:
        job, worker = taken.get(timeout=60)
        running -= job is None
        claims += [(job, worker)] if job else []
    for worker in workers:
        worker.join(10)
    assert sorted(job for job, _ in claims) == expected
    assert {job: queue.find(job).worker for job in expected} == dict(claims)
    assert all(queue.find(job).attempts == 1 for job in expected)


def test_a_job_that_does_not_wait_is_not_claimed(queue: Queue):
    job = end(queue, "running")
    assert queue.claim("other", job) is None
    assert queue.find(job).worker == "w"


def test_threads_share_one_queue(queue: Queue):
    expected = {queue.submit(SPEC).id for _ in range(40)}
    claims: list[str] = []

    def work(worker: str) -> None:
        while job := claim(queue, worker):
            claims.append(job.id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 40
    assert set(claims) == expected


def test_the_same_key_gives_the_same_job(queue: Queue):
    job = queue.submit(SPEC, key="k")
    assert queue.submit(SPEC, key="k") == job
    assert queue.submit(SPEC, key="other").id != job.id
    with pytest.raises(KeyReuseError, match=job.id):
        queue.submit(SPEC | {"epochs": 4}, key="k")


def test_the_same_key_gives_the_same_job_also_to_a_revision_whose_orders_tell_more_or_less(queue: Queue):
    job = queue.submit(SPEC, key="k")
    assert queue.submit(SPEC | {"mixup": 0.0}, key="k") == job
    assert queue.submit({"epochs": SPEC["epochs"]}, key="k") == job
    with pytest.raises(KeyReuseError):
        queue.submit(SPEC | {"mixup": 0.0, "epochs": 4}, key="k")


def test_progress_is_kept_and_requests_reach_the_worker(queue: Queue, clock: Clock):
    job = end(queue, "running")
    clock.now += 5
    assert queue.beat(job, "w", Progress(0.5, 60.0, "student", 2, 71.5, 1, {"torch": "2"})) is None
    row = queue.find(job)
    assert (row.heartbeat, row.progress, row.stage, row.epoch, row.best_score, row.versions) == (
        1005,
        0.5,
        "student",
        2,
        71.5,
        {"torch": "2"},
    )
    queue.stop(job)
    assert queue.beat(job, "w", Progress()) == "stop"
    asked = queue.cancel(job)
    assert (asked.state, asked.reason, asked.finished) == ("running", "", None), "it has not ended yet"
    assert queue.beat(job, "w", Progress()) == "cancel"
    assert queue.stop(job).request == "cancel", "cancel is not taken back by a later stop"


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_worker_ends_its_own_job_only_once(queue: Queue, state: str):
    job = end(queue, state)
    assert (queue.find(job).state, queue.find(job).reason) == (state, "so")
    with pytest.raises(LostClaimError):
        queue.finish(job, "w", "failed", "again")
    with pytest.raises(LostClaimError):
        queue.beat(job, "w", Progress())


@pytest.mark.parametrize(("state", "progress"), [("succeeded", 1.0), ("failed", 0.5), ("cancelled", 0.5)])
def test_only_success_is_the_whole_way(queue: Queue, state: State, progress: float):
    job = end(queue, "running")
    queue.beat(job, "w", Progress(0.5))
    queue.finish(job, "w", state, "so")
    assert queue.find(job).progress == progress


def test_another_worker_cannot_end_it(queue: Queue):
    job = end(queue, "running")
    with pytest.raises(LostClaimError):
        queue.finish(job, "someone else", "succeeded", "")
    assert queue.find(job).state == "running"


def test_cancelling_a_waiting_job_takes_it_out_of_the_queue(queue: Queue):
    job = end(queue, "queued")
    assert queue.cancel(job).state == "cancelled"
    assert claim(queue, "w") is None
    assert queue.cancel(job).state == "cancelled"


def test_cancelling_twice_changes_nothing(queue: Queue, clock: Clock):
    job = end(queue, "cancelled")
    before = queue.find(job)
    clock.now += 5
    assert queue.cancel(job) == before


ALLOWED = {
    "cancel": {"queued", "running", "interrupted", "cancelled"},
    "stop": {"running"},
    "resume": {"interrupted", "failed", "cancelled"},
    "delete": {"succeeded", "failed", "cancelled", "interrupted"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", ALLOWED)
def test_only_the_allowed_changes_happen(queue: Queue, verb: str, state: str):
    job = end(queue, state)
    if state in ALLOWED[verb]:
        getattr(queue, verb)(job)
        return
    with pytest.raises(JobStateError, match=f"job {job} is {state}"):
        getattr(queue, verb)(job)
    assert queue.find(job).state == state


@pytest.mark.parametrize("request_before", [None, "cancel", "stop"])
def test_a_resumed_job_is_as_it_was_before_it_was_taken_and_counts_its_attempts(queue: Queue, clock: Clock, request_before: str | None):
    job = end(queue, "running")
    queue.beat(job, "w", Progress(0.5, seconds_left=60.0))
    if request_before:
        getattr(queue, request_before)(job)
    queue.give_up_seat("w")
    clock.now += 5
    waiting = queue.resume(job)
    assert (waiting.reason, waiting.finished, waiting.worker, waiting.heartbeat) == ("", None, None, None)
    assert (waiting.request, waiting.seconds_left, waiting.progress) == (None, None, 0.5)
    claimed = claim(queue, "other")
    assert claimed is not None
    assert (claimed.id, claimed.attempts, claimed.worker) == (job, 2, "other")
    assert (claimed.started, claimed.heartbeat) == (1000.0, 1005.0)


def test_a_key_whose_job_is_deleted_just_now_is_found_or_makes_another_one(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    """Deleted after the first statement of an order: a second one would miss it."""
    first = queue.submit(SPEC, key="k")
    queue.cancel(first.id)

    def query_and_delete(*statement: Any) -> list[Job]:
        monkeypatch.undo()
        found = queue._query(*statement)
        queue.delete(first.id)
        return found

    monkeypatch.setattr(queue, "_query", query_and_delete)
    assert queue.submit(SPEC, key="k").id == first.id
    assert queue.submit(SPEC, key="k").id != first.id


def test_a_silent_worker_loses_its_job_and_learns_of_it(queue: Queue, clock: Clock):
    job = end(queue, "running")
    assert watch(queue.give_up_silent, clock, SILENCE_SECONDS - 1) == []
    assert watch(queue.give_up_silent, clock, 2) == [job]
    assert queue.find(job).state == "interrupted"
    assert "resume" in queue.find(job).reason
    with pytest.raises(LostClaimError):
        queue.beat(job, "w", Progress())


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_a_worker_is_not_silent_because_its_clock_differs(tmp_path: Path, queue: Queue, clock: Clock, ahead: float):
    other = Queue(tmp_path, lambda: clock.now + ahead)
    job = queue.submit(SPEC).id
    assert other.claim("w", job)
    for _ in range(3):
        assert queue.cancel(job).state == "running"
        assert watch(queue.give_up_silent, clock, SILENCE_SECONDS - 1) == []
        other.beat(job, "w", Progress())
    assert watch(queue.give_up_silent, clock, SILENCE_SECONDS + 1) == [job]


def test_who_has_not_watched_for_long_enough_gives_no_job_up(tmp_path: Path, queue: Queue, clock: Clock):
    job = end(queue, "running")
    clock.now += 10 * SILENCE_SECONDS
    late = Queue(tmp_path, clock, Silence(clock))
    assert late.give_up_silent() == []
    assert watch(late.give_up_silent, clock, SILENCE_SECONDS + 1) == [job]


@pytest.mark.parametrize("seconds", [SILENCE_SECONDS - 5, SILENCE_SECONDS + 5])
def test_while_nobody_could_look_nobody_was_silent(queue: Queue, clock: Clock, seconds: float):
    job = end(queue, "running")
    assert watch(queue.give_up_silent, clock, 10) == []
    # The queue was locked, or the host stood still: the job's worker could do no more than this one.
    clock.now += seconds
    assert watch(queue.give_up_silent, clock, SILENCE_SECONDS - 1) == []
    queue.beat(job, "w", Progress())
    assert queue.find(job).state == "running"


def test_a_sign_of_life_at_the_last_moment_counts(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch):
    queue = Queue(tmp_path, clock, silence := Silence(clock))
    job = end(queue, "running")
    assert watch(queue.give_up_silent, clock, SILENCE_SECONDS) == []
    clock.now += 1
    find = silence.find

    def find_slowly(*values: Any) -> Any:
        found = find(*values)
        assert found
        queue.beat(job, "w", Progress())
        return found

    monkeypatch.setattr(silence, "find", find_slowly)
    assert queue.give_up_silent() == []
    assert queue.find(job).state == "running"


def test_cancel_ends_a_job_whose_worker_died_and_no_other_looks_after_it(queue: Queue, clock: Clock):
    unasked, other, job = (end(queue, "running") for _ in range(3))
    queue.beat(job, "w", Progress(0.5, seconds_left=60.0))
    assert watch(queue.give_up_unheard, clock, SILENCE_SECONDS - 1) == []
    assert queue.cancel(other).state == "running"
    assert (queue.cancel(job).state, queue.cancel(job).request) == ("running", "cancel")
    clock.now += 2
    cancelled = queue.cancel(job)
    assert (cancelled.id, cancelled.state, cancelled.request) == (job, "cancelled", None)
    assert (cancelled.finished, cancelled.seconds_left) == (clock.now, None)
    assert [queue.find(one).state for one in (unasked, other)] == ["running", "cancelled"]
    with pytest.raises(LostClaimError):
        queue.beat(job, "w", Progress())
    assert queue.resume(job).state == "queued"


@pytest.mark.parametrize(("verb", "state"), [("cancel", "cancelled"), ("stop", "interrupted")])
def test_what_was_asked_of_a_worker_that_just_died_ends_the_job_once_it_is_known(queue: Queue, clock: Clock, verb: str, state: str):
    asked, unasked = end(queue, "running"), end(queue, "running")
    assert getattr(queue, verb)(asked).state == "running"
    assert watch(queue.give_up_unheard, clock, SILENCE_SECONDS + 1) == [asked]
    assert queue.find(asked).state == state
    assert queue.find(unasked).state == "running", "on a cluster its training may go on, and the next worker finds it"


def test_a_job_that_nobody_can_stop_is_interrupted_and_says_so(queue: Queue, clock: Clock):
    job = end(queue, "running")
    assert watch(queue.give_up_unheard, clock, SILENCE_SECONDS + 1) == []
    stopped = queue.stop(job)
    assert (stopped.state, stopped.request) == ("interrupted", None)
    assert stopped.reason.startswith("Its worker gave no sign of life any more, so it could not be stopped as asked; resume")


def test_a_cancel_that_the_dead_worker_never_saw_is_obeyed(queue: Queue):
    job = end(queue, "running")
    queue.cancel(job)
    queue.give_up_seat("w")
    assert queue.find(job).state == "cancelled"


@pytest.mark.parametrize("worker", ["host/cuda:0/2", "ghost/cpu/2"])
def test_a_dead_worker_takes_only_its_own_jobs_along(queue: Queue, worker: str):
    done, mine, other = (queue.submit(SPEC).id for _ in range(3))
    assert queue.claim("host/cpu/1", done)
    queue.finish(done, "host/cpu/1", "succeeded", "so")
    assert queue.claim("host/cpu/1", mine)
    assert queue.claim(worker, other)
    assert [job.id for job in queue.give_up_seat("host/cpu/")] == [mine]
    assert [queue.find(job).state for job in (done, other)] == ["succeeded", "running"]


@pytest.mark.parametrize("other", ["host/cpu/2", "ghost/ray/2"])
def test_a_successor_takes_over_the_jobs_of_its_seat_alone_and_they_are_not_silent(queue: Queue, clock: Clock, other: str):
    done, mine, theirs = (queue.submit(SPEC).id for _ in range(3))
    assert queue.claim("host/ray/1", done)
    queue.finish(done, "host/ray/1", "succeeded", "so")
    assert queue.claim("host/ray/1", mine)
    assert queue.claim(other, theirs)
    assert watch(queue.give_up_silent, clock, SILENCE_SECONDS) == []
    clock.now += 1
    assert [job.id for job in queue.adopt("host/ray/", "host/ray/3")] == [mine]
    assert [job.id for job in queue.give_up_silent()] == [theirs]
    assert queue.beat(mine, "host/ray/3", Progress()) is None


def test_pages_are_complete_and_newest_first(queue: Queue):
    numbers = [queue.submit(SPEC).number for _ in range(5)]
    first = queue.page(2)
    rest = queue.page(10, before=first[-1].number)
    assert [job.number for job in [*first, *rest]] == numbers[::-1]


def test_an_unknown_job_is_a_sentence(queue: Queue):
    for verb in (*ALLOWED, "find"):
        with pytest.raises(UnknownJobError, match="no job 'x'"):
            getattr(queue, verb)("x")
