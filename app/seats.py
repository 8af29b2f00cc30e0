"""What the jobs of a host can run on: one seat each for every GPU, for the processor, or for a cluster; one worker has it at a time."""

import contextlib
import fcntl
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from app.errors import UnavailableError
from app.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# A worker marks its seat so often, and is taken for stuck when the last mark is so old: nothing that it does between two
# marks takes longer.
MARK_SECONDS, STUCK_SECONDS = 5.0, 60.0
# The seat of a worker that hands its jobs to a cluster.
CLUSTER = "ray"
CPU = "cpu"


@contextlib.contextmanager
def hold_seat(state: Path, seat: str, leaving: Callable[[], bool]) -> Iterator[bool]:
    """Wait until no other worker of this host has the seat; the system lets go of it when the process ends, however it does.

    Gives whether it is held: False for a worker that has to leave before that, and must touch nothing of the one that holds it.

    Raises:
        UnavailableError: if the seat's file cannot be opened or locked.
    """
    with _open(state, seat) as file:
        held = _lock(file)
        if not held:
            logger.info("Another worker of this host has %s; standing by.", seat)
        while not held and not leaving():
            time.sleep(POLL_SECONDS)
            held = _lock(file)
        yield held


def mark_seat(path: Path) -> None:
    """Note beside a held seat that its worker still goes round: the time of the seat's file."""
    with contextlib.suppress(OSError):  # a folder that cannot be used is told elsewhere; here it leaves no mark
        # This host's time, also where another one keeps the file.
        if not _is_recent(path, MARK_SECONDS):
            os.utime(path, (now := time.time(), now))


def find_marked(state: Path, everywhere: bool = False) -> list[str]:
    """The files of this host's seats whose workers went round lately.

    Args:
        everywhere: those of other hosts, too, if their clocks are right.
    """
    # Not of hosts whose names begin with this one's.
    host = ".+" if everywhere else re.escape(socket.gethostname())
    seat = re.compile(rf"{host}-({CLUSTER}|{CPU}|cuda\d+)\.lock")
    return [file.name for file in state.glob("*.lock") if seat.fullmatch(file.name) and _is_recent(file, STUCK_SECONDS)]


def _is_recent(file: Path, seconds: float) -> bool:
    """Whether a file's time is about now; one that lies ahead was left by a clock that was set back since."""
    return abs(time.time() - file.stat().st_mtime) <= seconds


class Devices:
    """The GPUs that the job of one worker runs on: its own, and those of idle neighbours where the job asks for several.

    A GPU serves one job at a time. A job that finds too few free ones stays the oldest that waits, so no worker begins a newer one
    before it, and sooner or later enough are free.

    Args:
        state: the folder that the workers share.
        own: the worker's seat.
        others: the other seats of this host.
    """

    def __init__(self, state: Path, own: str, others: Sequence[str]):
        self.state, self.own, self.all = state, own, [own, *(seat for seat in others if seat != own)]
        self._held: dict[str, IO[bytes]] = {}

    @property
    def held(self) -> list[str]:
        """Those taken now."""
        return list(self._held)

    def take(self, count: int) -> bool:
        """Take so many, or none; the system lets go of them when the process ends, however it does.

        Raises:
            UnavailableError: if the file of one cannot be opened or locked; those taken before it are left to `release`.
        """
        for seat in self.all:
            file = _open(self.state, f"{seat}-job")
            if _lock(file):
                self._held[seat] = file
            else:
                file.close()
            if len(self._held) == count and self.own in self._held:
                return True
        self.release()
        return False

    def release(self) -> None:
        """Let go of all."""
        for file in self._held.values():
            file.close()
        self._held.clear()


def list_seats(settings: Settings) -> list[str]:
    """What jobs can run on, one worker each: the cluster, or every GPU, or the CPU where there is none."""
    return [CLUSTER] if settings.engine else list_gpus() or [CPU]


def list_gpus() -> list[str]:
    """The GPUs of this host, as far as this process is shown them."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _open(state: Path, seat: str) -> IO[bytes]:
    path = name_file(state, seat)
    try:
        return path.open("ab")
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be opened: {error.strerror}. If it is another user's, run all workers of this host as that user, or with an "
            "L2D_STATE of your own."
        ) from error


def name_file(state: Path, seat: str) -> Path:
    """The file of a seat. Asked once by whoever keeps it: a laptop has another host name in another network."""
    return state / f"{socket.gethostname()}-{seat.replace(':', '')}.lock"


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UnavailableError(f"{file.name} cannot be locked: {error.strerror}. Give an L2D_STATE on a file system with locks.") from error
    return True
