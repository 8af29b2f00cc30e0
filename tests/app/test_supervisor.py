"""How long the supervisor waits before it starts a worker again."""

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


def test_a_worker_that_lived_long_is_started_again_after_the_first_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(supervisor, "YOUNG_SECONDS", -1.0)
    assert watch_pauses(tmp_path, monkeypatch) == [FIRST_PAUSE] * 8
