"""How long a request waits for its answer, and whether anybody still does."""

import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from app.errors import DeadlineError, LeftError, UnavailableError

CLOSING = "The server is shutting down; ask again when it is back."
_TOO_SLOW = "The answer was not ready in time. Ask again later, or for fewer models or labels."

T = TypeVar("T")


class Ticket:
    """One request's claim to an answer. Safe to use from several threads.

    Args:
        seconds: from now until the answer is due.

    Attributes:
        due: that moment, as `time.monotonic` tells it; long past once the client has left.
    """

    def __init__(self, seconds: float):
        self.due = time.monotonic() + seconds
        self._left: Future[Any] = Future()

    def leave(self) -> None:
        """Nobody waits any more: what has not begun for this request will not be, and `wait` returns."""
        self.due = 0.0
        if not self._left.done():
            self._left.set_result(None)

    def check(self) -> None:
        """Go on only while the answer is wanted.

        Raises:
            DeadlineError, LeftError: if it comes too late.
        """
        if self._left.done():
            raise LeftError("The client went away before its answer was ready.")
        if time.monotonic() > self.due:
            raise DeadlineError(_TOO_SLOW)

    def wait(self, future: "Future[T]") -> T:
        """The result of a future.

        Raises:
            DeadlineError, LeftError: if it comes too late.
            UnavailableError: if it was cancelled because the server stops.
        """
        # By callbacks: `concurrent.futures.wait` does not hear of futures that a pool cancels when it is shut down.
        over = threading.Event()
        for end in (future, self._left):
            end.add_done_callback(lambda _: over.set())
        over.wait(max(0.0, self.due - time.monotonic()))
        if not future.done():
            self.check()
            raise DeadlineError(_TOO_SLOW)
        try:
            return future.result()
        except CancelledError:
            raise UnavailableError(CLOSING) from None
