"""What a worker keeps until a job's end is on record; workers as real processes are in jobs/."""

import json
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from app import worker as workers
from app.commands import run_command
from app.errors import UnavailableError
from app.jobs import Job, LostClaimError
from app.places import Places
from app.processes import Exit, LocalMachine, MachineError
from app.records import JobFolder, Task
from app.seats import STUCK_SECONDS, find_marked, hold_seat
from app.settings import Settings
from app.worker import Worker


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """A worker whose trainings succeed at once."""
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    worker = Worker(places, "cpu", LocalMachine(places, "cpu"))
    worker._train = lambda job, folder: ("succeeded", "Trained to the end.")  # type: ignore[method-assign]
    return worker


@pytest.mark.parametrize("error", [MachineError("No GPU is free.", passes=True), OSError("gone")])
def test_a_job_that_somebody_else_has_by_now_ends_no_worker(worker: Worker, error: Exception):
    def fail(job: object, folder: object) -> None:
        worker.queue.give_up_seat(worker.prefix)
        raise error

    worker._train = fail  # type: ignore[method-assign,assignment]
    job = worker.queue.submit({"data": "shapes"})
    claimed = worker.queue.claim(worker.name, job.id)
    assert claimed
    worker.work(claimed)
    assert worker.queue.find(job.id).state == "interrupted"


def test_a_worker_is_seen_also_when_its_host_is_called_another_way_meanwhile(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    with hold_seat(worker.places.state, "cpu", lambda: False):
        monkeypatch.setattr(socket, "gethostname", lambda: "laptop.of.another.network")
        now = time.time() + STUCK_SECONDS + 1
        monkeypatch.setattr("app.seats.time.time", lambda: now)
        assert find_marked(worker.places.state, everywhere=True) == []
        worker.leave.set()
        worker._pause()
        assert len(find_marked(worker.places.state, everywhere=True)) == 1


def train(worker: Worker) -> tuple[str, Path]:
    """Run a job; returns it and its folder."""
    job = worker.queue.submit({"data": "shapes"})
    folder = worker.places.jobs / job.id
    for name in (f"ready/shapes-l2d-{job.id}", "student", "best-student-0001"):
        (folder / name).mkdir(parents=True)
    claimed = worker.queue.claim(worker.name, job.id)
    assert claimed
    worker.work(claimed)
    return job.id, folder


def test_once_the_end_is_on_record_what_resume_needs_goes(worker: Worker):
    job, folder = train(worker)
    assert list(worker.queue.find(job).models) == [f"shapes-l2d-{job}"]
    assert list(folder.iterdir()) == []


def test_until_then_it_stays_for_whoever_gives_the_job_up(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    def lose(*_: object) -> None:
        raise LostClaimError("too late")

    monkeypatch.setattr(worker.queue, "finish", lose)
    job, folder = train(worker)
    (given_up,) = worker.queue.give_up_seat(worker.prefix)
    worker._clear(given_up)
    assert list(worker.places.models.iterdir()) == [], "nobody was told of it"
    assert {path.name for path in folder.iterdir()} >= {"student", "best-student-0001"}
    assert worker.queue.resume(job).state == "queued"


@pytest.mark.parametrize(("passes", "state", "reason"), [(True, "queued", ""), (False, "failed", "There is no GPU.")])
def test_a_job_that_a_machine_could_not_begin_waits_again_if_that_passes(worker: Worker, passes: bool, state: str, reason: str):
    def fail(job: object, folder: object) -> None:
        raise MachineError("There is no GPU.", passes=passes)

    worker._train = fail  # type: ignore[method-assign,assignment]
    job, _ = train(worker)
    assert (worker.queue.find(job).state, worker.queue.find(job).reason) == (state, reason)


def test_the_end_is_recorded_as_soon_as_the_queue_can_be_written(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    finish, refused = worker.queue.finish, []

    def finish_at_last(*values: Any) -> None:
        if len(refused) < 2:
            refused.append(values)
            raise UnavailableError("locked")
        finish(*values)

    monkeypatch.setattr(workers, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(worker.queue, "finish", finish_at_last)
    job, _ = train(worker)
    assert worker.queue.find(job).state == "succeeded"


@pytest.fixture
def unwritable(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No end can be recorded by this worker, which is told to leave at the third try; holds when it tried."""
    tried: list[float] = []

    def fail(*_: object) -> None:
        tried.append(time.monotonic())
        if len(tried) == 3:
            worker.leave.set()
        raise UnavailableError("The disk is full.")

    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(worker.queue, "finish", fail)
    return tried


def test_who_has_to_leave_does_not_wait_until_the_end_can_be_recorded(
    worker: Worker, unwritable: list[float], caplog: pytest.LogCaptureFixture
):
    job, folder = train(worker)
    assert len(unwritable) == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "The disk is full.",
        f"Job {job} succeeded, which could not be written down: the next worker finds it running.",
    ]
    assert worker.queue.find(job).state == "running"
    assert (folder / "student").exists(), "what resume needs stays"


def test_the_next_worker_of_a_cluster_records_the_models_that_the_last_one_moved(
    worker: Worker, unwritable: list[float], monkeypatch: pytest.MonkeyPatch
):
    job, folder = train(worker)
    successor = Worker(worker.places, "cpu", worker.machine)
    successor._train = lambda *_: ("succeeded", "Trained to the end.")  # type: ignore[method-assign]
    (adopted,) = successor.queue.adopt(worker.prefix, successor.name)
    monkeypatch.setattr(worker.machine, "find", lambda job, stop: Ended())
    JobFolder(folder).write_task(Task(job, 1, {}, "cpu"))
    successor.work(adopted, started=True)
    assert list(successor.queue.find(job).models) == [f"shapes-l2d-{job}"]


def test_whoever_takes_a_seat_over_gives_up_and_clears_what_ran_there(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    abandoned: list[Job] = []
    monkeypatch.setattr(worker.machine, "abandon", abandoned.append)
    job = worker.queue.submit({"data": "shapes"})
    assert worker.queue.claim(f"{worker.prefix}1", job.id)
    half = worker.places.jobs / job.id / ".state.pt.partial"
    half.parent.mkdir(parents=True)
    half.touch()
    assert worker._take_over() == []
    assert worker.queue.find(job.id).state == "interrupted"
    assert [gone.id for gone in abandoned] == [job.id]
    assert not half.exists()


def claim(worker: Worker) -> Job:
    """A job that this worker began."""
    job = worker.queue.submit({"data": "shapes"})
    claimed = worker.queue.claim(worker.name, job.id)
    assert claimed
    (worker.places.jobs / job.id).mkdir(parents=True)
    return claimed


@pytest.mark.parametrize("left", [b"", b'{"job": "1', b"\xff"])
def test_a_job_whose_order_is_damaged_fails_and_ends_no_worker(worker: Worker, left: bytes):
    job = claim(worker)
    (worker.places.jobs / job.id / "order.json").write_bytes(left)
    worker.work(job, started=True)
    ended = worker.queue.find(job.id)
    assert ended.state == "failed"
    assert ended.reason.endswith("order.json is damaged.")


def test_a_worker_shows_that_it_goes_round_until_it_is_stuck(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    check = ["worker", "--check"]
    monkeypatch.setattr("app.seats.MARK_SECONDS", 0.0)
    monkeypatch.setattr("app.seats.STUCK_SECONDS", 0.5)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)
    stuck, go_on = threading.Event(), threading.Event()
    assert run_command(check, Settings(state=worker.places.state)) == 1

    def look() -> None:
        if stuck.is_set():
            go_on.wait(60)

    monkeypatch.setattr(worker.queue, "find_oldest", look)

    def wait_for(code: int) -> None:
        until = time.monotonic() + 60
        while run_command(check, Settings(state=worker.places.state)) != code:
            assert time.monotonic() < until
            time.sleep(0.02)

    running = threading.Thread(target=worker.run)
    running.start()
    try:
        # For longer than the first sign counts.
        time.sleep(0.6)
        wait_for(0)
        stuck.set()
        wait_for(1)
    finally:
        go_on.set()
        worker.leave.set()
        running.join()


class Ended:
    """A training that ended before anybody looked."""

    def poll(self) -> Exit:
        return Exit(1)

    def end(self) -> None:
        pass


def test_of_a_job_that_another_worker_has_by_now_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As after a host stood still: elsewhere the job was given up, resumed, and is being trained."""
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    worker = Worker(places, "cpu", LocalMachine(places, "cpu"))
    written = []

    def start(job: Job, folder: JobFolder, stop: bool) -> Ended:
        worker.queue.give_up_seat(worker.prefix)
        worker.queue.resume(job.id)
        assert worker.queue.claim("elsewhere/cpu/1", job.id)
        written.append(folder.path / ".state.pt.partial")
        written[0].touch()
        return Ended()

    monkeypatch.setattr(worker.machine, "start", start)
    worker.work(claim(worker))
    assert written[0].exists()


def test_what_another_job_left_and_nobody_may_remove_fails_no_job(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    left, own = claim(worker), claim(worker)

    def refuse(folder: JobFolder) -> None:
        if folder.path.name == left.id:
            raise PermissionError(f"{folder.path} is somebody else's")

    monkeypatch.setattr(JobFolder, "sweep", refuse)
    monkeypatch.setattr(worker.queue, "give_up_silent", lambda: [left])
    monkeypatch.setattr(worker.machine, "start", lambda job, folder, stop: Ended())
    del worker._train
    worker.work(own)
    assert worker.queue.find(own.id).reason.startswith("The training process ended with code 1")


def test_a_damaged_line_of_metrics_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    worker = Worker(places, "cpu", LocalMachine(places, "cpu"))
    monkeypatch.setattr(worker.machine, "start", lambda job, folder, stop: Ended())
    job = claim(worker)
    JobFolder(places.jobs / job.id).metrics.write_text(
        '{"event":"ep{"event":"step"}\n{"event":"failed","attempt":1,"reason":"So it is."}\n'
    )
    worker.work(job)
    assert (worker.queue.find(job.id).state, worker.queue.find(job.id).reason) == ("failed", "So it is.")


def test_an_order_is_written_whole_or_not_at_all(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    started: list[str] = []
    monkeypatch.setattr(worker.machine, "start", lambda job, folder, stop: started.append(job.id))
    job = claim(worker)
    folder = JobFolder(worker.places.jobs / job.id)
    worker._start(job, folder, stop=False)
    before = folder.order.read_text()
    write = Path.write_text

    def fill_the_disk(path: Path, text: str, **options: Any) -> None:
        write(path, text[:10], **options)
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        worker._start(job, folder, stop=True)
    assert folder.order.read_text() == before
    assert json.loads(before)["stop"] is False
    assert started == [job.id]


def test_a_mistake_within_a_job_that_was_found_is_not_taken_for_the_end_of_them(worker: Worker, monkeypatch: pytest.MonkeyPatch):
    worked: list[Job] = []
    monkeypatch.setattr(worker, "work", lambda job, started: worked.append(job) or [][0])
    with pytest.raises(IndexError):
        worker._serve(deque([claim(worker), claim(worker)]))
    assert len(worked) == 1
