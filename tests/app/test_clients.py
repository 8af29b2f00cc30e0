"""What is done for a client ends with it, and is counted among what clients wait for."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from app.clients import run_while_wanted
from app.engine import Engine
from app.errors import LeftError
from app.ticket import Ticket


async def stay() -> dict[str, Any]:
    """What a client sends that waits for its answer: nothing."""
    await asyncio.Event().wait()
    raise AssertionError("nothing was to come")


def test_a_client_waits_in_one_of_its_threads_and_is_watched_no_longer_than_that(engine: Engine):
    async def ask() -> tuple[float, int]:
        before = asyncio.all_tasks()
        borrowed = await run_while_wanted(stay, engine, lambda _: engine.threads.borrowed_tokens)
        await asyncio.sleep(0)
        return borrowed, len(asyncio.all_tasks() - before)

    assert asyncio.run(ask()) == (1, 0)


def test_work_of_a_request_that_the_server_cancels_waits_no_longer(engine: Engine):
    begun, told = threading.Event(), Future[BaseException | None]()

    def work(ticket: Ticket) -> None:
        begun.set()
        try:
            ticket.wait(Future())
        except LeftError as error:
            told.set_result(error)

    async def cancel() -> None:
        request = asyncio.create_task(run_while_wanted(stay, engine, work))
        assert await asyncio.to_thread(begun.wait, 60)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(cancel())
    assert isinstance(told.result(20), LeftError)
