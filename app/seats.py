"""What the jobs of a host can run on: one seat each for every GPU, for the processor, or for a cluster; one worker has it at a time."""

import contextlib
import fcntl
import itertools
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from app.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# The seat of a worker that hands its jobs to a cluster.
CLUSTER = "ray"


@contextlib.contextmanager
def hold_seat(state: Path, seat: str, leaving: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other worker of this host has the seat; the system lets go of it when the process ends, however it does."""
    with (state / f"{socket.gethostname()}-{seat.replace(':', '')}.lock").open("ab") as file:
        for attempt in itertools.count():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 0:
                    logger.info("Another worker of this host has %s; standing by.", seat)
                if leaving():
                    break
                time.sleep(POLL_SECONDS)
        yield


def list_seats(settings: Settings) -> list[str]:
    """What jobs can run on, one worker each: the cluster, or every GPU, or the CPU where there is none."""
    if settings.engine:
        return [CLUSTER]
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
