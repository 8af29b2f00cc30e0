"""Workers as real processes: what they leave behind when they end well, and when they do not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.jobs import Job, Queue
from app.orders import Order
from app.places import Places
from app.records import TEMPORARY, JobFolder
from app.worker import ENTRY, make_environment
from l2d.checkpoint import hash_file, load_checkpoint

PATIENCE = 120.0
LABELS = ("dark", "light", "red")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    draw_tiny(places.data / "tiny", 40)
    places.checkpoints.mkdir()
    return places


@pytest.fixture
def queue(places: Places) -> Queue:
    return Queue(places.state)


def draw_tiny(folder: Path, count: int) -> None:
    """A data set of pictures that differ by their brightness."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = ["file,labels,split"]
    for number in range(count):
        level = int(generator.integers(0, 256))
        pixels = generator.integers(0, 30, (40, 40, 3)) + level * 0.8
        labels = ["light" if level > 127 else "dark"] + (["red"] if number % 3 == 0 else [])
        pixels[..., 0] += 25 * (number % 3 == 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(labels)},{'test' if number % 5 == 4 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def order_tiny(**changes: Any) -> dict[str, Any]:
    """An order of a few seconds, with networks that the page does not offer."""
    values = {"data": "tiny", "student": "test_resnet", "method": "vanilla", "epochs": 2, "batch_size": 4, "lr": 1e-3, "image_size": 32}
    return Order.model_construct(**values | {"width": 16, "feedforward": 16, "holdout": 0.2} | changes).model_dump()


def start_worker(places: Places, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", ENTRY, "worker", "--device", "cpu", *words]
    environment = make_environment(os.environ, places) | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)


@contextlib.contextmanager
def working(places: Places, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker, gone at the end with everything below it."""
    worker = start_worker(places, *words)
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.terminate()
        assert worker.wait(30) in (0, -signal.SIGKILL, -signal.SIGTERM)
        assert worker.stdin is not None
        worker.stdin.close()
        wait_until(lambda: not find_processes(places))


def find_processes(places: Places) -> list[int]:
    """Processes of these places, by their environment."""
    mark = f"L2D_STATE={places.state}\0".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes() and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(folder.name))
    return found


def find_training(places: Places) -> list[int]:
    """Processes that train."""
    return [number for number in find_processes(places) if b"\0job\0" in Path(f"/proc/{number}/cmdline").read_bytes()]


def wait_until(done: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := done()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def wait_for(queue: Queue, job: str, *states: str) -> Job:
    return wait_until(lambda: next((row for row in [queue.find(job)] if row.state in states), None))


def read_events(places: Places, job: str, kind: str) -> list[dict[str, Any]]:
    return [record for record in JobFolder(places.jobs / job).read_all() if record["event"] == kind]


def wait_for_epoch(places: Places, job: str, count: int = 1) -> None:
    def reached() -> bool:
        assert not (failures := read_events(places, job, "failed")), failures
        return len(read_events(places, job, "epoch")) >= count

    wait_until(reached)


def find_temporary(places: Places) -> list[Path]:
    return [path for path in places.state.rglob(".*") if TEMPORARY.fullmatch(path.name)]


def test_a_job_ends_as_a_model_with_its_teacher(places: Places, queue: Queue):
    order = order_tiny(method="l2d", teacher_backbone="test_resnet", teacher_epochs=1, title="My student")
    job = queue.submit(order)[0].id
    with working(places):
        ended = wait_for(queue, job, "succeeded", "failed")
    assert (ended.state, ended.progress, ended.attempts, ended.epoch) == ("succeeded", 1.0, 1, 2), ended.reason
    assert ended.reason.startswith("Trained to the end")
    assert ended.versions.keys() == {"python", "torch", "timm"}
    assert ended.best_score is not None
    assert sorted(ended.models) == [f"tiny-test_resnet-l2d-{job}", f"tiny-test_resnet-teacher-{job}"]
    _, card = load_checkpoint(places.models / f"tiny-test_resnet-l2d-{job}")
    assert (card.title, card.labels, card.lineage["job"], card.role) == ("My student", LABELS, job, "student")
    assert card.teacher is not None
    assert card.teacher["name"] == f"tiny-test_resnet-teacher-{job}"
    assert card.scores["images"] == 8
    folder = places.jobs / job
    assert sorted(path.name for path in folder.iterdir()) == ["log.txt", "metrics.jsonl", "order.json", "probes"]
    assert sorted(path.name for path in (folder / "probes").glob("*.json")) == ["0001.json", "0002.json", "pictures.json", "teacher.json"]
    maps = json.loads((folder / "probes/0002.json").read_text())["pictures"]
    assert np.shape(maps[0][0]["rows"]) == (1, 1)
    assert [(line["stage"], line["epoch"]) for line in read_events(places, job, "epoch")] == [
        ("teacher", 1),
        ("student", 1),
        ("student", 2),
    ]
    assert find_temporary(places) == []


def test_cancel_is_obeyed_within_five_seconds(places: Places, queue: Queue):
    job = queue.submit(order_tiny(epochs=1000))[0].id
    with working(places):
        wait_for_epoch(places, job)
        start = time.monotonic()
        queue.cancel(job)
        ended = wait_for(queue, job, "cancelled")
        assert time.monotonic() - start < 5
        assert find_training(places) == []
    assert "resume" in ended.reason
    assert find_temporary(places) == []
    assert not places.models.exists()


def test_stop_keeps_the_best_student(places: Places, queue: Queue):
    job = queue.submit(order_tiny(epochs=1000))[0].id
    with working(places):
        wait_for_epoch(places, job, 2)
        queue.stop(job)
        ended = wait_for(queue, job, "succeeded", "failed")
    assert ended.reason.startswith(f"Stopped as asked; the student of epoch {ended.best_epoch} is kept")
    scores = {line["epoch"]: line["mAP"] for line in read_events(places, job, "epoch")}
    assert scores[ended.best_epoch] == max(scores.values()) == ended.best_score
    _, card = load_checkpoint(places.models / ended.models[0])
    assert card.scores["held_out"]["mAP"] == pytest.approx(ended.best_score, abs=1e-3)


def run_undisturbed(places: Places, queue: Queue, order: dict[str, Any]) -> str:
    """The hash of the student's weights when nothing goes wrong."""
    job = queue.submit(order)[0].id
    ended = wait_for(queue, job, "succeeded", "failed")
    assert ended.state == "succeeded", ended.reason
    return hash_file(places.models / ended.models[0] / "model.safetensors")


def test_killed_in_the_middle_of_an_epoch_it_resumes_to_the_same_bits(places: Places, queue: Queue):
    order = order_tiny(epochs=6)
    job = queue.submit(order)[0].id
    with working(places) as worker:
        wait_for_epoch(places, job, 2)
        worker.kill()
    with working(places):
        interrupted = wait_for(queue, job, "interrupted")
        assert "resume" in interrupted.reason
        assert find_temporary(places) == []
        queue.resume(job)
        ended = wait_for(queue, job, "succeeded", "failed")
        assert (ended.state, ended.attempts) == ("succeeded", 2), ended.reason
        assert hash_file(places.models / ended.models[0] / "model.safetensors") == run_undisturbed(places, queue, order)
    epochs = [line["epoch"] for line in read_events(places, job, "epoch")]
    assert sorted(set(epochs)) == [1, 2, 3, 4, 5, 6]
    assert len(epochs) <= 7, "at most the last finished epoch is told twice"
