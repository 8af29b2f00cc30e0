"""What a worker keeps until a job's end is on record; workers as real processes are in jobs/."""

from pathlib import Path

import pytest

from app.jobs import LostClaimError
from app.places import Places
from app.processes import LocalMachine, MachineError
from app.worker import Worker, clear


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
    job, _ = worker.queue.submit({"data": "shapes"})
    claimed = worker.queue.claim(worker.name, job.id)
    assert claimed
    worker.work(claimed)
    assert worker.queue.find(job.id).state == "interrupted"


def train(worker: Worker) -> tuple[str, Path]:
    """Run a job; returns it and its folder."""
    job, _ = worker.queue.submit({"data": "shapes"})
    folder = worker.places.jobs / job.id
    for name in (f"ready/shapes-l2d-{job.id}", "student", "best-student"):
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
    clear(given_up, worker.places, worker.machine)
    assert list(worker.places.models.iterdir()) == [], "nobody was told of it"
    assert {path.name for path in folder.iterdir()} >= {"student", "best-student"}
    assert worker.queue.resume(job).state == "queued"
