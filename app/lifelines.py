"""When a process ends by itself: as soon as nobody wants it any more, however whoever wanted it went away."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

from app.errors import UnavailableError
from app.jobs import UnknownJobError
from app.queue import Queue

logger = logging.getLogger(__name__)

# How often a training that no worker of this machine holds looks whether it is still wanted.
CLAIM_SECONDS = 2.0
# Exit code of a training that nobody wants any more.
LEFT_ALONE = 3


def watch_parent(gone: Callable[[], None]) -> None:
    """Have `gone` called as soon as standard input ends: when whoever started this process is gone, however that happened."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        gone()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def die_with_parent() -> None:
    """End this process as soon as whoever started it is gone."""
    watch_parent(lambda: os._exit(LEFT_ALONE))


def die_with_claim(queue: Queue, name: str, attempt: int) -> None:
    """End this process as soon as the job is no longer this attempt's: cancelled, given up, begun anew, or deleted."""

    def is_wanted() -> bool:
        try:
            job = queue.find(name)
        except UnavailableError:  # it passes
            return True
        except UnknownJobError:
            return False
        return (job.state, job.attempts) == ("running", attempt)

    def watch() -> None:
        while is_wanted():
            time.sleep(CLAIM_SECONDS)
        logger.warning("Job %s is no longer this run's; ending.", name)
        os._exit(LEFT_ALONE)

    threading.Thread(target=watch, name="claim", daemon=True).start()
