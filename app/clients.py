"""Work for whoever asked over HTTP, page and API alike: it ends when they go away."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from starlette.types import Receive

from app.engine import Engine
from app.ticket import Ticket

T = TypeVar("T")


async def run_while_wanted(receive: Receive, engine: Engine, work: Callable[[Ticket], T]) -> T:
    """Wait for blocking work in one of the threads for clients.

    When the client goes away meanwhile, its ticket says so, and its thread and its place are free again.

    Args:
        receive: the request's, its body read.
    """
    ticket = Ticket(engine.settings.request_seconds)
    watch = asyncio.create_task(_leave_with(receive, ticket))
    try:
        return await anyio.to_thread.run_sync(work, ticket, limiter=engine.threads)
    finally:
        watch.cancel()
        # Its thread may still wait, when the server stops and cancels the request.
        ticket.leave()


async def _leave_with(receive: Receive, ticket: Ticket) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    ticket.leave()
