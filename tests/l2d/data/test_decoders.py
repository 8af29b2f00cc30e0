"""Processes that decode: when there are any, and that none is left, however it ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from l2d import processes
from l2d.data import decoders
from l2d.data.decoders import Pixels, StartError, count_decoders, decode_in_processes

# Since Python 3.12 a process that has threads is warned when it forks.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forked = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads decode")


@pytest.fixture(autouse=True)
def no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only in a main thread torch has a signal tell of a process that died; pictures are read in another one."""
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._set_SIGCHLD_handler", lambda: None)


def draw(row: int) -> Pixels:
    return np.full((2, 2, 3), row % 256, np.uint8)


def draw_all(rows: int = 300) -> Generator[Pixels, None, None]:
    return decode_in_processes(draw, range(rows), 2)


@forked
def test_pictures_come_in_order_from_other_processes() -> None:
    assert [int(picture[0, 0, 0]) for picture in draw_all(100)] == list(range(100))
    numbers = {int(picture[0]) for picture in decode_in_processes(lambda row: np.array([os.getpid()]), range(100), 2)}
    assert len(numbers - {os.getpid()}) == 2
    assert multiprocessing.active_children() == []


@forked
def test_they_are_forked_however_else_processes_are_started() -> None:
    """As Python 3.14 does: from scratch, which runs the user's script once more and takes no function of its own."""
    multiprocessing.set_start_method("spawn", force=True)
    try:
        assert len(list(decode_in_processes(lambda row: draw(row), range(40), 2))) == 40
    finally:
        multiprocessing.set_start_method(None, force=True)


@forked
def test_no_process_outlives_an_iteration_that_stops_early() -> None:
    with closing(draw_all()) as pictures:
        next(pictures)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


@forked
def test_an_error_arrives_in_its_own_words() -> None:
    def fail(row: int) -> Pixels:
        raise ValueError(f"There is no picture {row}.")

    with pytest.raises(ValueError) as error:
        next(decode_in_processes(fail, range(300), 2))
    assert str(error.value) == "There is no picture 0."
    assert multiprocessing.active_children() == []


@forked
def test_a_process_that_is_killed_ends_the_iteration_and_the_others() -> None:
    pictures = draw_all(3000)
    assert len(list(islice(pictures, 2 * decoders.CHUNK + 1))) == 33
    multiprocessing.active_children()[0].kill()
    with pytest.raises(ChildProcessError, match="A process that decodes pictures was killed, perhaps for want of memory"):
        list(pictures)
    assert multiprocessing.active_children() == []


def refuse_third_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    started, fork = [], os.fork

    def start() -> int:
        if len(started) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", start)


def refuse_semaphores(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the processes; a limit on processes counts threads, too."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(decoders, "_prepare_process", refuse)


@forked
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    ("refuse", "reason"),
    [
        (refuse_third_fork, "temporarily unavailable"),
        (refuse_semaphores, "No such file or directory"),
        (refuse_threads, "can't start new thread$"),
    ],
)
def test_processes_that_cannot_be_started_are_told_apart_and_leave_none(
    monkeypatch: pytest.MonkeyPatch, refuse: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    refuse(monkeypatch)
    hook = sys.unraisablehook
    with pytest.raises(StartError, match=reason):
        next(decode_in_processes(draw, range(300), 3))
    assert sys.unraisablehook is hook
    assert multiprocessing.active_children() == []


@forked
def test_ctrl_c_is_left_to_the_parent() -> None:
    pictures = draw_all()
    begun = list(islice(pictures, 2 * decoders.CHUNK))  # from both
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGINT)
    assert len(begun + list(pictures)) == 300


ABANDONED = """
import multiprocessing, time
import numpy as np
from l2d.data.decoders import decode_in_processes
pictures = decode_in_processes(lambda row: np.zeros((224, 224, 3), np.uint8), range(1000), 2)
next(pictures)
time.sleep(1)
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""


@forked
def test_processes_end_with_a_parent_that_is_killed() -> None:
    """Also those that wait for room in a pipe that nobody empties any more."""
    with subprocess.Popen([sys.executable, "-c", ABANDONED], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as parent:
        assert parent.stdout is not None
        numbers = parent.stdout.readline().split()
        parent.kill()
    assert len(numbers) == 2
    deadline = time.monotonic() + 10
    while (alive := [number for number in numbers if Path("/proc", number).exists()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


@pytest.mark.parametrize(
    ("processors", "pictures", "platform", "expected"),
    [
        (4, 4 * decoders.LEAST_PER_PROCESS, "linux", 4),
        (4, 4 * decoders.LEAST_PER_PROCESS - 1, "linux", 0),
        (64, 100_000, "linux", decoders.MOST_PROCESSES),
        (4, 100_000, "darwin", 0),
        (4, 100_000, "win32", 0),
    ],
)
def test_there_are_processes_where_they_can_be_forked_and_are_worth_their_start(
    monkeypatch: pytest.MonkeyPatch, processors: int, pictures: int, platform: str, expected: int
) -> None:
    monkeypatch.setattr(processes, "count_processors", lambda: processors)
    monkeypatch.setattr(sys, "platform", platform)
    assert count_decoders(pictures) == expected


@forked
def test_a_process_that_may_have_no_children_has_none() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(count_decoders, (100_000,)) == 0
