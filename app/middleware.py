"""What happens to every request, whatever it asks: it gets an id, a line in the log and a count; its answer gets headers."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Collection, MutableMapping
from http import HTTPMethod
from typing import Any

from anyio import BrokenResourceError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from app.answers import fail, refuse
from app.errors import UnavailableError, UnknownRouteError
from app.metrics import Metrics
from app.ticket import CLOSING

logger = logging.getLogger("app.requests")

REQUEST_ID = "X-Request-ID"
# What a proxy in front may have given; anything else is replaced.
GOOD_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# Asked all the time by machines.
PROBES = ("/healthz", "/readyz", "/metrics")
PAGE = "page"
# Letters; more than any address has, with an interface's name.
MAX_ADDRESS = 64

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'; form-action 'self'",
}
# Gradio answers other sites' pages on any host but this machine's own: nobody asked for that here.
CROSS_ORIGIN = "access-control-"

GRADIO = "/gradio_api/"
# What the page asks of Gradio. Its other routes store files, hand files out, or fetch addresses.
PAGE_ROUTES = re.compile(
    r"(queue/(join|data|status)|component_server|heartbeat/[^/]*|startup-events|info|app_id|cancel|reset|login_check|theme\.css)/?"
)


def find_route(scope: Scope) -> str:
    """The path without that below which a proxy shows the server."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def find_address(scope: Scope) -> str:
    """Where a request came from; empty if nobody knows. A proxy may pass on anything for it, so only what a line can hold is taken."""
    address = str((scope.get("client") or ("",))[0])
    return address[:MAX_ADDRESS].encode("ascii", "backslashreplace").decode()


class Observe:
    """Gives every request an id, which its answer and all lines of the log carry, and counts and times it.

    Args:
        routes: the API's paths, as they are declared; everything else counts as the page.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Collection[str]):
        self.app, self.metrics, self.routes = app, metrics, frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through; what fails below is answered here, so that this answer too is counted and has its headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0
        sent_id = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = sent_id if GOOD_ID.fullmatch(sent_id) else secrets.token_hex(16)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
                self._count(scope, status, time.perf_counter() - start)
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:
                if not status:
                    await fail(scope["method"], _read_path(scope), error)(scope, receive, send_with_id)
                elif isinstance(error.__cause__, HTTPException):
                    # A refusal behind a stream's beginning, as Gradio's for pages that it does not know: told there, and the stream ends.
                    await send({"type": "http.response.body", "body": b""})
                elif not _is_hang_up(error):
                    raise
            except asyncio.CancelledError:
                if status:
                    raise
                # The server stops, and waited for this one long enough.
                await refuse(UnavailableError(CLOSING))(scope, receive, send_with_id)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", PAGE)
        route = route if route in self.routes else PAGE
        method = scope["method"] if scope["method"] in HTTPMethod.__members__ else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in PROBES or (route == PAGE and status < 400) else logging.INFO
        fields = {"status": status, "seconds": round(seconds, 4), "client": find_address(scope)}
        logger.log(level, "%s %s", method, _read_path(scope), extra=fields)


def _is_hang_up(error: Exception) -> bool:
    """Whether all that failed was to pass on what nobody reads any more, as FastAPI's streams do when their reader goes away."""
    return isinstance(error, ExceptionGroup) and error.split(BrokenResourceError)[1] is None


def _read_path(scope: Scope) -> str:
    """The path as it was sent, so that no letter of it ends a line; without the query, which may hold anything."""
    return str(scope.get("raw_path", b"").decode("latin-1"))[:200] or str(scope["path"])[:200]


class ProtectAnswers:
    """Adds `HEADERS` to every answer, and lets no other site's page read one."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything through, and see to the headers on the way back."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_headers(message)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _set_headers(message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    for name in [name for name in headers if name.lower().startswith(CROSS_ORIGIN)]:
        del headers[name]
    for name, value in HEADERS.items():
        headers.setdefault(name, value)


class CloseRoutes:
    """Answers for those of Gradio's routes that the page has no use for."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a closed route; pass everything else through."""
        if scope["type"] == "http" and _is_closed(find_route(scope)):
            error = UnknownRouteError("The page does not use this route, so it is closed. /docs describes the routes for programs.")
            await refuse(error)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_closed(path: str) -> bool:
    if path.startswith(GRADIO):
        return PAGE_ROUTES.fullmatch(path.removeprefix(GRADIO)) is None
    return path.startswith(("/monitoring", "/login", "/logout"))
