"""How much Gradio keeps, writes and fetches for whoever reaches the page; left to itself, as much as they like."""

import io
import logging
import sys
import traceback
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils, queueing, routes
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.answers import HANDLERS, refuse
from app.errors import RequestError

# Pages whose state is kept, the latest ones; browsers name theirs with some ten letters.
MAX_PAGES, LONGEST_NAME = 500, 64
# Events that wait for their turn, of all pages; and messages that wait for one page to read them, some three for every event.
MAX_WAITING, MAX_UNREAD = 200, 32
# Of a form: the photograph aside, the page sends names and one request in JSON.
MAX_FIELDS, MAX_FIELD_BYTES = 8, 64 * 2**10
# Between two looks at the events that wait. Gradio looks every millisecond, which takes a fifteenth of a processor while nobody asks.
LOOK_SECONDS = 0.02
# Of an error's first line; in the others Gradio repeats all that a page sent.
LONGEST_REASON = 200

logger = logging.getLogger(__name__)


def bound_page(page: gr.Blocks) -> None:
    """Bound what is kept for pages that come, ask and never read, and how often it is looked at. Call it before the page is mounted."""
    page.queue(max_size=MAX_WAITING)
    page.state_session_capacity = MAX_PAGES
    queue: Any = page._queue
    queue.pending_messages_per_session.max_size = MAX_PAGES
    queue.sleep_when_free = LOOK_SECONDS
    push = queue.push

    async def push_if_read(body: Any, request: Any, username: str | None) -> tuple[bool, Any, str]:
        # Gradio forgets a page's messages, but not which events they were about.
        for name in queue.pending_event_ids_session.keys() - queue.pending_messages_per_session.keys():
            del queue.pending_event_ids_session[name]
        if len(body.session_hash) > LONGEST_NAME:
            return False, f"Expected a page's name of at most {LONGEST_NAME} letters.", "error"
        unread = queue.pending_messages_per_session.get(body.session_hash)
        if unread is not None and unread.qsize() > MAX_UNREAD:
            return False, "This page does not read what it is told; reload it.", "queue_full"
        pushed: tuple[bool, Any, str] = await push(body=body, request=request, username=username)
        return pushed

    queue.push = push_if_read
    # Gradio's prints on standard error, past the log and its format, and would wait for whoever does not read it.
    printer: Any = queueing
    printer.traceback = SimpleNamespace(**vars(traceback) | {"print_exc": _log_failure})


def _log_failure(*_: Any, **__: Any) -> None:
    """In place of `traceback.print_exc`: tell the error at hand, and where it came from."""
    error = sys.exception()
    if error is not None:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:LONGEST_REASON]
        logger.error("An event of the page failed: %s\n%s", reason, "".join(traceback.format_tb(error.__traceback__)))


def bound_routes(app: routes.App) -> None:
    """Have Gradio's routes keep uploads in memory, fetch nothing, and refuse in words what names nothing that there is.

    Args:
        app: Gradio's, with the page.
    """
    inside: Any = routes
    # Its own parser writes photographs to files, and leaves them there when the sender goes away.
    inside.GradioMultiPartParser = _FormParser
    # Gradio fetches every address that a page sends instead of a file. This page sends none, so whoever does is somebody else.
    processing_utils.async_ssrf_protected_get = processing_utils.async_ssrf_protected_download = _refuse_address
    app.add_exception_handler(ClientDisconnect, HANDLERS[ClientDisconnect])
    app.add_exception_handler(KeyError, _answer_unknown)


class _FormParser(MultiPartParser):
    """In place of Gradio's: keeps the upload in memory, whose size is limited. Other limits are the page's."""

    spool_max_size = 0

    def __init__(self, headers: Headers, stream: AsyncGenerator[bytes, None], **_: Any):
        super().__init__(headers, stream, max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)

    async def parse(self) -> FormData:
        form = await super().parse()
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                # Gradio would remove an upload's file by its name; of a plain stream it knows that there is none.
                value.file = io.BytesIO(await value.read())
        return form


async def _refuse_address(url: str, cache_dir: str = "") -> NoReturn:
    raise ValueError("Addresses are not fetched here.")


async def _answer_unknown(request: Request, error: Exception) -> Response:
    # Gradio looks up what a request names without asking whether it is there.
    return refuse(RequestError(f"The page has no {error}, or a field of that name is missing; reload the page."))
