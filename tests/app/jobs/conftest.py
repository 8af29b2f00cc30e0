"""A place with a tiny data set, and workers as real processes in it."""

import contextlib
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

from app.errors import UnavailableError
from app.jobs import Job
from app.orders import Order
from app.places import Places
from app.processes import ENTRY, make_environment
from app.queue import Queue
from app.records import TEMPORARY, JobFolder
from l2d.checkpoint import hash_file

# Generous: on a busy machine it takes a minute until torch is imported.
PATIENCE = 600.0
TOKEN = "a-token-that-no-worker-needs"


class Lab:
    """Folders of a test, and what can be seen and done there.

    Attributes:
        places: with the data set `tiny`, 40 pictures that differ by brightness.
        queue: of these places.
    """

    def __init__(self, folder: Path):
        self.places = Places(folder / "state", folder / "data", folder / "checkpoints")
        draw_tiny(self.places.data / "tiny", 40)
        self.places.checkpoints.mkdir()
        self.queue = Queue(self.places.state)

    def submit(self, **changes: Any) -> str:
        """Order something of a few seconds, with networks that the page does not offer; returns the job's id."""
        values = {"data": "tiny", "student": "test_resnet", "method": "vanilla", "epochs": 2, "batch_size": 4, "lr": 1e-3, "image_size": 32}
        order = Order.model_construct(**values | {"width": 16, "feedforward": 16, "holdout": 0.2} | changes)
        return self.queue.submit(order.model_dump()).id

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start any Python process with the environment of a worker, and a secret."""
        environment = make_environment(os.environ, self.places) | {"OMP_NUM_THREADS": "1", "L2D_TOKEN": TOKEN}
        return subprocess.Popen([sys.executable, *words], env=environment, stdin=subprocess.PIPE, start_new_session=True)

    @contextlib.contextmanager
    def working(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker, gone at the end with everything below it."""
        worker = self.start(*(words or ("-m", ENTRY, "worker", "--device", "cpu")))
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.terminate()
            assert worker.wait(PATIENCE) in (0, -signal.SIGKILL, -signal.SIGTERM)
            assert worker.stdin is not None
            worker.stdin.close()
            self.wait(lambda: not self.find_processes())

    def find_processes(self, word: str = "") -> list[int]:
        """Living processes of these places, by their environment; those with a word in their command line."""
        mark = f"L2D_STATE={self.places.state}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                living = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
                if (
                    living
                    and mark in (folder / "environ").read_bytes()
                    and (not word or word.encode() in (folder / "cmdline").read_bytes().split(b"\0"))
                ):
                    found.append(int(folder.name))
        return found

    def wait(self, done: Callable[[], Any]) -> Any:
        """What a function gives, as soon as that is something."""
        deadline = time.monotonic() + PATIENCE
        while not (value := done()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)
        return value

    def wait_for(self, job: str, *states: str) -> Job:
        """A job, as soon as it is in one of these states."""

        def look() -> Job | None:
            with contextlib.suppress(UnavailableError):  # locked, or on a full disk: as for every reader, it passes
                row = self.queue.find(job)
                return row if row.state in states else None
            return None

        return self.wait(look)

    def wait_for_epoch(self, job: str, count: int = 1) -> None:
        """Wait until so many epochs were reported."""

        def reached() -> bool:
            assert not (failures := self.events(job, "failed")), failures
            return len(self.events(job, "epoch")) >= count

        self.wait(reached)

    def events(self, job: str, kind: str) -> list[dict[str, Any]]:
        """What a job's training reported of one kind."""
        return [record for record in JobFolder(self.places.jobs / job).read_all() if record["event"] == kind]

    def temporary(self) -> list[Path]:
        """Files that should have been renamed or removed."""
        return [path for path in self.places.state.rglob(".*") if TEMPORARY.fullmatch(path.name)]

    def hash_student(self, job: Job) -> str:
        """The hash of a finished student's weights."""
        assert job.state == "succeeded", job.reason
        return hash_file(self.places.models / job.models[0] / "model.safetensors")


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


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)
