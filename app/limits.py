"""What a client may take of the server before anything is done for it: bytes, time to send them, requests in a minute."""

import ipaddress
import math
import time
from dataclasses import dataclass

import anyio
from cachetools import TTLCache
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import read_address
from app.answers import refuse
from app.bodies import MULTIPART
from app.errors import BusyError, CrowdedBodyError, LargeBodyError, MediaTypeError, RequestError, SlowBodyError
from app.middleware import GRADIO, find_address, find_route

# So many times the limit is read and forgotten before a sender of too much is hung up on: who is hung up on seldom reads the answer.
PATIENCE = 4
# So many of the largest bodies are held at once, whole or in part, until their requests are answered.
MAX_HELD = 16
# What the page sends beside photographs: names and a form's fields. Gradio keeps some of it for as long as it runs.
PAGE_BYTES = 256 * 2**10
# Methods that make no work worth counting.
CHEAP = ("GET", "HEAD", "OPTIONS")
WINDOW_SECONDS = 60
# Clients remembered at once; beyond, the one counted first is forgotten.
MAX_CLIENTS = 20_000


class LimitBody:
    """Reads bodies no further than a limit, and waits for them no longer than a time; page, API and jobs alike.

    A slow sender holds its connection alone: no thread, and no place at the networks, before the whole body is there.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float):
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds
        self._memory = _Memory(MAX_HELD * max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app read, unless the body is refused: then it meets a client that left, and what it says of that is not sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        form = headers.get("content-type", "").lower().startswith(MULTIPART)
        limit = self.max_bytes if form or not find_route(scope).startswith(GRADIO) else min(self.max_bytes, PAGE_BYTES)
        body = _Body(headers, receive, limit, self.seconds, self._memory)
        started = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if started or body.refusal is None:
                started = True
                await send(message)

        try:
            await self.app(scope, body.receive, send_unless_refused)
        except Exception:
            if body.refusal is None or started:
                raise
        finally:
            body.release()
        if body.refusal is not None and not started:
            await refuse(body.refusal)(scope, receive, send)


@dataclass
class _Memory:
    """Bytes of bodies that are held, and how many may be."""

    limit: int
    held: int = 0


class _Body:
    """A body on its way. `refusal` says why no more of it is read."""

    def __init__(self, headers: Headers, receive: Receive, limit: int, seconds: float, memory: _Memory):
        said = headers.get("content-length", "")
        self._said = int(said) if said.isdecimal() else 0
        self._encoding = headers.get("content-encoding", "").strip().lower()[:40]
        self._receive, self._limit, self._seconds, self._memory = receive, limit, seconds, memory
        self._due = anyio.current_time() + seconds
        self._received, self._held, self._ended = 0, 0, False
        self.refusal: RequestError | None = None

    async def receive(self) -> Message:
        """The next part of the body; once it has ended, whatever comes."""
        if self._ended:
            return await self._receive()
        if self._encoding not in ("", "identity"):
            # What it unpacks to has no limit that could be told beforehand.
            return self._refuse(MediaTypeError(f"Expected an uncompressed body; got one with 'Content-Encoding: {self._encoding}'."))
        if self._said > PATIENCE * self._limit:
            return self._refuse(self._describe_size())
        try:
            with anyio.fail_after(self._due - anyio.current_time()):
                return await self._read()
        except TimeoutError:
            longest = f"{self._seconds:g} second{'s' * (self._seconds != 1)}"
            return self._refuse(SlowBodyError(f"Expected the whole body within {longest}; send it faster, or less."))

    async def _read(self) -> Message:
        while True:
            # One that says that the client left has no body, and ends it.
            message = await self._receive()
            self._received += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
            if max(self._said, self._received) <= self._limit:
                return message if self._hold() else self._refuse(self._describe_bodies())
            if self._ended or self._received > PATIENCE * self._limit:
                return self._refuse(self._describe_size())

    def release(self) -> None:
        """Nothing of the body is needed any more."""
        self._memory.held -= self._held
        self._held = 0

    def _hold(self) -> bool:
        self._memory.held += self._received - self._held
        self._held = self._received
        return self._memory.held <= self._memory.limit

    def _describe_bodies(self) -> CrowdedBodyError:
        return CrowdedBodyError("The bodies of other requests take all the memory there is for them. Ask again in a second.", 1)

    def _describe_size(self) -> LargeBodyError:
        return LargeBodyError(
            f"Expected a body of at most {self._limit} bytes; got {self._said or 'more'}. Send less, a smaller picture for example."
        )

    def _refuse(self, refusal: RequestError) -> Message:
        self.refusal, self._ended = refusal, True
        return {"type": "http.disconnect"}


@dataclass
class _Window:
    ends: float
    requests: int = 0


class LimitRate:
    """At most so many requests that make work from one address, in every minute; None sets no limit.

    A fixed window, of a fixed number of addresses: a library's would do the same with a store that grows with the addresses it meets.
    """

    def __init__(self, app: ASGIApp, per_minute: int | None):
        self.app, self.per_minute = app, per_minute
        # Entries are changed in place, so each lives for one window from its first request.
        self._windows: TTLCache[str, _Window] = TTLCache(MAX_CLIENTS, WINDOW_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request, and refuse it when there were too many."""
        if scope["type"] != "http" or self.per_minute is None or scope["method"] in CHEAP:
            await self.app(scope, receive, send)
            return
        window = self._windows.setdefault(name_client(scope), _Window(time.monotonic() + WINDOW_SECONDS))
        window.requests += 1
        if window.requests <= self.per_minute:
            await self.app(scope, receive, send)
            return
        seconds = max(1, math.ceil(window.ends - time.monotonic()))
        most = f"{self.per_minute} request{'s' * (self.per_minute > 1)}"
        sentence = f"At most {most} a minute from one address. Ask again in {seconds} second{'s' * (seconds > 1)}."
        error = BusyError(sentence, seconds)
        await refuse(error)(scope, receive, send)


def name_client(scope: Scope) -> str:
    """Whom a request is counted for: its address, or for IPv6 the network of 64 bits that one customer usually has."""
    host = find_address(scope) or "unknown"
    try:
        address = read_address(host)
    except ValueError:
        return host
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))
