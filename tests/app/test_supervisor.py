"""How long the supervisor waits before it starts a worker again."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app import supervisor
from app.places import Places
from app.supervisor import FIRST_PAUSE, LAST_PAUSE, Supervisor


class Pauses(threading.Event):
    """Notes the pauses instead of waiting, and is set after some of them."""

    def __init__(self, count: int):
        super().__init__()
        self.count, self.seen = count, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seen.append(timeout)
        if len(self.seen) == self.count:
            self.set()
        return self.is_set()


def watch_pauses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of a supervisor whose workers cannot be started."""

    def fail(*_: object) -> None:
        raise OSError("no process can be made")

    monkeypatch.setattr(supervisor, "start_process", fail)
    keeper = Supervisor(Places(folder, folder, folder), ["cpu"])
    keeper._closing = pauses = Pauses(8)
    keeper._keep("cpu")
    return pauses.seen


def test_the_pauses_double_from_the_first_to_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert watch_pauses(tmp_path, monkeypatch) == [FIRST_PAUSE, 1, 2, 4, 8, 16, LAST_PAUSE, LAST_PAUSE]


def test_workers_are_told_to_leave_without_being_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()

    def start(*_: object) -> subprocess.Popen[bytes]:
        # Leaves a second after it is told to.
        code = "import signal, time; signal.signal(15, lambda *_: (time.sleep(1), exit())); print(flush=True); time.sleep(60)"
        worker = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.put(worker)
        return worker

    monkeypatch.setattr(supervisor, "start_process", start)
    keeper = Supervisor(Places(tmp_path, tmp_path, tmp_path), ["cpu"])
    keeper.start()
    worker = started.get(timeout=60)
    assert worker.stdout is not None
    with worker.stdout:
        worker.stdout.readline()
        keeper.dismiss()
        assert worker.poll() is None
        keeper.close()
        assert (worker.returncode, started.empty()) == (0, True)


def test_a_worker_that_lived_long_is_started_again_after_the_first_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "YOUNG_SECONDS", -1.0)
    assert watch_pauses(tmp_path, monkeypatch) == [FIRST_PAUSE] * 8
