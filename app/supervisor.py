"""Keeps workers running beside the server: one process per device, started again whenever one dies."""

import contextlib
import logging
import subprocess
import threading
import time
from collections.abc import Sequence

from app.places import Places
from app.processes import start_process

logger = logging.getLogger(__name__)

# Waited before a worker is started again: longer every time, from the first to the last, as long as it dies young.
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0
YOUNG_SECONDS = 60.0
# A worker that is told to leave ends its training first.
LEAVE_SECONDS = 6.0


class Supervisor:
    """The workers of one server.

    When the server dies without a word, they finish the job that they are at, and leave.

    Args:
        devices: "cpu", "cuda:0", ..., or "ray" for a cluster; one worker each.
    """

    def __init__(self, places: Places, devices: Sequence[str]):
        self.places, self.devices = places, tuple(devices)
        self._closing = threading.Event()
        # Whoever dismisses the workers finds all of them: none is started meanwhile or afterwards.
        self._lock = threading.Lock()
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the workers."""
        self._threads = [threading.Thread(target=self._keep, args=(device,), name=f"worker-{device}") for device in self.devices]
        for thread in self._threads:
            thread.start()

    def dismiss(self) -> None:
        """Tell the workers to leave; the jobs that they are at are interrupted."""
        self._closing.set()
        with self._lock:
            for worker in self._workers.values():
                worker.terminate()

    def close(self) -> None:
        """Stop the workers. Returns when they are gone."""
        self.dismiss()
        for thread in self._threads:
            thread.join()

    def _keep(self, device: str) -> None:
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            start = time.monotonic()
            worker = self._start(device)
            if worker is not None:
                self._outlive(worker, device)
            if time.monotonic() - start > YOUNG_SECONDS:
                pause = FIRST_PAUSE
            self._closing.wait(pause)
            pause = min(2 * pause, LAST_PAUSE)

    def _start(self, device: str) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._closing.is_set():
                return None
            try:
                worker = start_process(self.places, ["worker", "--device", device, "--attached"], None)
            except OSError as error:
                logger.warning("No worker can be started: %s", error)
                return None
            self._workers[device] = worker
            return worker

    def _outlive(self, worker: subprocess.Popen[bytes], device: str) -> None:
        """Wait until a worker is gone; while closing, no longer than it may take to leave."""
        while worker.poll() is None and not self._closing.wait(0.2):
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(LEAVE_SECONDS)
        worker.kill()
        worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()
        if not self._closing.is_set():
            logger.warning("The worker on %s ended with code %d and is started again.", device, worker.returncode)
