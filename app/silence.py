"""For how long workers have given no sign of life, as one process sees it."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

# Looks that lie further apart do not belong together. What keeps one from looking, as a locked queue or a host that stands still,
# keeps others from giving signs.
PAUSE_SECONDS = 15.0


class Sign(NamedTuple):
    """A worker's last sign of life: whose it is, and its time by a clock that is not ours."""

    job: str
    worker: str
    heartbeat: float


class Silence:
    """Watches signs of life. The clocks of two hosts may differ, so a sign is compared with nothing but the one before.

    A silence is what was watched all the while: who did not look for some time watches anew.

    Safe to use from several threads: a sign that one of them forgets for another begins anew.

    Args:
        clock: seconds that pass, from any moment on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._since: dict[Sign, float] = {}
        self._looked = clock()

    def find(self, signs: Iterable[Sign], seconds: float) -> list[Sign]:
        """Those of all present signs that have been seen for longer than so many seconds; others begin to be watched."""
        now = self._clock()
        before = self._since if now - self._looked <= PAUSE_SECONDS else {}
        self._since = since = {sign: before.get(sign, now) for sign in signs}
        self._looked = now
        return [sign for sign, first in since.items() if now - first > seconds]
