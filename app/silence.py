"""For how long workers have given no sign of life, as one process sees it."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple


class Sign(NamedTuple):
    """A worker's last sign of life: whose it is, and its time by a clock that is not ours."""

    job: str
    worker: str
    heartbeat: float


class Silence:
    """Watches signs of life. The clocks of two hosts may differ, so a sign is compared with nothing but the one before.

    Safe to use from several threads: a sign that one of them forgets for another begins anew.

    Args:
        clock: seconds that pass, from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: dict[Sign, float] = {}

    def find(self, signs: Iterable[Sign], seconds: float) -> list[Sign]:
        """Those of all present signs that have been seen for longer than so many seconds; others begin to be watched."""
        now = self._clock()
        self._since = since = {sign: self._since.get(sign, now) for sign in signs}
        return [sign for sign, first in since.items() if now - first > seconds]
