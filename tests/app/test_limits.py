"""What a client may take before anything is done for it."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.limits import MAX_HELD, PAGE_BYTES, WINDOW_SECONDS, LimitBody, LimitRate, name_client
from app.server import create_api
from app.settings import Settings

IPV4, IPV6 = "192.0.2.7", "2001:db8:1:2:3:4:5:6"


async def count_bytes(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers with the length of the body, or says that the client left."""
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        await PlainTextResponse("gone", 400)(scope, receive, send)
        return
    await PlainTextResponse(str(len(body)))(scope, receive, send)


async def ask(app: Any, content: bytes | AsyncIterator[bytes] | None = None, client: str = IPV4, method: str = "POST") -> httpx.Response:
    transport = httpx.ASGITransport(app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as asker:
        return await asker.request(method, "/", content=content)


async def drip(parts: int, size: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(parts):
        await asyncio.sleep(pause)
        yield bytes(size)


def error_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["status"] == response.status_code
    return response.status_code, error["code"]


def test_body_within_the_limit_comes_through():
    app = LimitBody(count_bytes, max_bytes=100, seconds=5)
    assert asyncio.run(ask(app, bytes(100))).text == "100"
    assert asyncio.run(ask(app, drip(4, 25))).text == "100"
    assert asyncio.run(ask(app)).text == "0"


@pytest.mark.parametrize("length", [101, 399, 401, 10**6])
def test_body_beyond_the_limit_is_refused_whether_or_not_it_said_so(length: int):
    app = LimitBody(count_bytes, max_bytes=100, seconds=5)
    for content, told in ((bytes(length), length), (drip(length // 50 + 1, 50), "more")):
        response = asyncio.run(ask(app, content))
        assert error_of(response) == (413, "too_large")
        assert f"at most 100 bytes; got {told}." in response.json()["error"]["message"]
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize("below", ["", "/l2d"])
def test_of_the_pages_own_requests_less_is_read(below: str):
    async def ask_page(size: int) -> httpx.Response:
        transport = httpx.ASGITransport(LimitBody(count_bytes, max_bytes=2**20, seconds=5), root_path=below)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as asker:
            return await asker.post(f"{below}/gradio_api/queue/join", content=bytes(size))

    assert asyncio.run(ask_page(PAGE_BYTES)).text == str(PAGE_BYTES)
    assert error_of(asyncio.run(ask_page(PAGE_BYTES + 1))) == (413, "too_large")


def test_body_without_end_is_not_read_for_ever():
    app = LimitBody(count_bytes, max_bytes=100, seconds=5)
    assert error_of(asyncio.run(ask(app, drip(10**9, 50)))) == (413, "too_large")


def test_body_that_says_that_it_is_far_too_large_is_not_even_awaited():
    async def refuse() -> list[Any]:
        sent: list[Any] = []

        async def send(message: object) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"401")]}
        await LimitBody(count_bytes, max_bytes=100, seconds=5)(scope, _never, send)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(refuse())[0]["status"] == 413


def test_body_that_takes_too_long_is_refused():
    app = LimitBody(count_bytes, max_bytes=100, seconds=0.1)
    response = asyncio.run(ask(app, drip(20, 1, pause=0.02)))
    assert error_of(response) == (408, "slow_request")
    assert "within 0.1 seconds" in response.json()["error"]["message"]


def test_bodies_of_all_requests_together_are_bounded():
    waiting, over = 0, asyncio.Event()

    async def hold(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal waiting
        await Request(scope, receive).body()
        waiting += 1
        await over.wait()
        await PlainTextResponse("held")(scope, receive, send)

    async def flood() -> tuple[list[httpx.Response], httpx.Response, httpx.Response]:
        app = LimitBody(hold, max_bytes=100, seconds=5)
        held = [asyncio.create_task(ask(app, bytes(100))) for _ in range(MAX_HELD)]
        while waiting < MAX_HELD:
            await asyncio.sleep(0)
        refused = await ask(app, drip(10, 5))
        over.set()
        return await asyncio.gather(*held), refused, await ask(app, bytes(100))

    held, refused, later = asyncio.run(flood())
    assert [answer.text for answer in [*held, later]] == ["held"] * (MAX_HELD + 1)
    assert error_of(refused) == (429, "busy")
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")


def test_answer_may_take_longer_than_the_body():
    async def think(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await asyncio.sleep(0.2)
        await PlainTextResponse("done")(scope, receive, send)

    assert asyncio.run(ask(LimitBody(think, max_bytes=100, seconds=0.1), b"x")).text == "done"


def test_app_that_answers_before_it_reads_is_not_interrupted():
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await receive()
        await send({"type": "http.response.body", "body": b"no"})

    answer = asyncio.run(ask(LimitBody(refuse, max_bytes=1, seconds=5), bytes(50)))
    assert (answer.status_code, answer.text) == (404, "no")


def fail(begun: bool) -> ASGIApp:
    """An app that fails once it has read, whether or not its answer has begun."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        raise ZeroDivisionError

    return app


def test_app_that_fails_over_a_refused_body_leaves_it_refused():
    app = LimitBody(fail(begun=False), max_bytes=1, seconds=5)
    assert error_of(asyncio.run(ask(app, bytes(50)))) == (413, "too_large")


@pytest.mark.parametrize(("begun", "size"), [(False, 1), (True, 1), (True, 50)])
def test_no_other_failure_of_the_app_is_hidden(begun: bool, size: int):
    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask(LimitBody(fail(begun), max_bytes=1, seconds=5), bytes(size)))


def test_rate_is_counted_for_every_address_on_its_own():
    app = LimitRate(count_bytes, per_minute=2)
    assert [asyncio.run(ask(app)).status_code for _ in range(3)] == [200, 200, 429]
    refused = asyncio.run(ask(app))
    assert error_of(refused) == (429, "busy")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert asyncio.run(ask(app, client="192.0.2.8")).status_code == 200
    assert asyncio.run(ask(app, method="GET")).status_code == 200


def test_rate_allows_again_in_the_next_minute():
    app = LimitRate(count_bytes, per_minute=1)
    assert [asyncio.run(ask(app)).status_code for _ in range(2)] == [200, 429]
    app._windows.expire(time.monotonic() + WINDOW_SECONDS - 5)
    assert asyncio.run(ask(app)).status_code == 429
    app._windows.expire(time.monotonic() + WINDOW_SECONDS + 1)
    assert asyncio.run(ask(app)).status_code == 200


def test_no_rate_is_set_by_default():
    assert Settings.model_fields["requests_per_minute"].default is None
    app = LimitRate(count_bytes, per_minute=None)
    assert {asyncio.run(ask(app)).status_code for _ in range(20)} == {200}


def test_memory_for_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.limits.MAX_CLIENTS", 100)
    app = LimitRate(count_bytes, per_minute=1)

    async def flood() -> None:
        for number in range(110):
            scope = {"type": "http", "method": "POST", "client": (f"192.0.2.{number}", 1)}
            await app(scope, _never, _ignore)  # type: ignore[arg-type]

    async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    app.app = nothing
    asyncio.run(flood())
    assert len(app._windows) == 100


async def _never() -> dict[str, Any]:
    raise AssertionError


async def _ignore(message: object) -> None:
    pass


def test_customer_of_ipv6_is_one_client():
    assert name_client({"client": (IPV4, 1)}) == name_client({"client": (f"::ffff:{IPV4}", 1)}) == IPV4
    assert name_client({"client": (IPV6, 1)}) == name_client({"client": ("2001:db8:1:2::9", 2)}) == "2001:db8:1:2::/64"
    assert name_client({"client": None}) == "unknown"
    assert name_client({"client": ("testclient", 1)}) == "testclient"
    assert name_client({"client": ("\x9b31m" + "x" * 99, 1)}) == "\\x9b31m" + "x" * 60, "as a proxy passed it on"


def test_jobs_have_the_same_limits(settings: Settings):
    app = create_api(settings.model_copy(update={"max_upload_bytes": 1000, "requests_per_minute": 2}))
    # What a job needs on a server without a token: this machine's address and host.
    with TestClient(app, client=("127.0.0.1", 50000)) as client:
        headers = {"Host": "127.0.0.1"}
        large = client.post("/v1/jobs", json={"data": "x" * 2000}, headers=headers)
        small = client.post("/v1/jobs", json={"data": "x"}, headers=headers)
        third = client.post("/v1/jobs", json={"data": "x"}, headers=headers)
    assert error_of(large) == (413, "too_large")
    assert small.status_code == 422
    assert error_of(third) == (429, "busy")


def test_a_server_waits_for_bodies_as_long_as_its_settings_say(settings: Settings):
    transport = httpx.ASGITransport(create_api(settings.model_copy(update={"request_seconds": 0.1})))

    async def order_slowly() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/v1/jobs", content=drip(20, 1, pause=0.02), headers={"Content-Type": "application/json"})

    assert error_of(asyncio.run(order_slowly())) == (408, "slow_request")
