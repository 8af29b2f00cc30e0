"""What every answer carries, and which of Gradio's routes are closed."""

import asyncio

import httpx
import pytest
from anyio import BrokenResourceError
from fastapi.testclient import TestClient
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.engine import Engine
from app.metrics import Metrics
from app.middleware import CloseRoutes, Observe, ProtectAnswers
from app.server import create_api
from app.settings import Settings


@pytest.mark.parametrize(
    ("path", "closed"),
    [
        ("/", False),
        ("/config", False),
        ("/assets/index.js", False),
        ("/gradio_api/queue/join", False),
        ("/gradio_api/queue/data", False),
        ("/gradio_api/component_server", False),
        ("/gradio_api/heartbeat/abc", False),
        ("/gradio_api/heartbeat/abc/file=/etc/passwd", True),
        ("/gradio_api/file=/etc/passwd", True),
        ("/gradio_api/upload", True),
        ("/gradio_api/proxy=http://10.0.0.1/", True),
        ("/gradio_api/stream/a/1/2/playlist.m3u8", True),
        ("/gradio_api/run/predict", True),
        ("/gradio_api/", True),
        ("/monitoring/summary", True),
        ("/login", True),
    ],
)
@pytest.mark.parametrize("below", ["", "/l2d"])
def test_only_what_the_page_needs_of_gradio_is_open(path: str, closed: bool, below: str):
    async def ask() -> int:
        transport = httpx.ASGITransport(CloseRoutes(PlainTextResponse("open")), root_path=below)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get(below + path)).status_code

    assert asyncio.run(ask()) == (404 if closed else 200)


def test_a_request_that_the_end_cuts_off_is_told_so():
    async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Observe(never_answers, Metrics(), []))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0)
            asked.cancel()
            return await asked

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_an_answer_that_the_end_cuts_off_is_not_begun_again():
    async def never_ends(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(ask_observed(never_ends, "12345678"), 0.1))


def test_permission_for_other_sites_is_taken_back_and_a_route_keeps_its_own_policy():
    generous = PlainTextResponse("x", headers={"Access-Control-Allow-Origin": "*", "Referrer-Policy": "no-referrer"})
    headers = asyncio.run(ask_protected(generous))
    assert "access-control-allow-origin" not in headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_every_answer_tells_browsers_what_they_must_not_do_with_it():
    headers = asyncio.run(ask_protected(PlainTextResponse("x")))
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "same-origin")
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["permissions-policy"] == "camera=(self), microphone=(), geolocation=()"
    directives = {"frame-ancestors 'self'", "object-src 'none'", "base-uri 'self'", "form-action 'self'"}
    assert set(headers["content-security-policy"].split("; ")) == directives


async def ask_protected(app: ASGIApp) -> httpx.Headers:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(ProtectAnswers(app)), base_url="http://test") as client:
        return (await client.get("/")).headers


async def ask_observed(app: ASGIApp, request_id: str) -> str:
    transport = httpx.ASGITransport(Observe(app, Metrics(), []))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get("/", headers={"X-Request-ID": request_id})).headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("12345678", True), ("a.b_c-D9", True), ("1234567", False), ("12345678<b>", False), ("1" * 65, False)]
)
def test_an_id_that_came_along_is_kept_if_it_is_nothing_else(sent: str, kept: bool):
    assert (asyncio.run(ask_observed(PlainTextResponse("x"), sent)) == sent) == kept


def break_off(error: Exception) -> ASGIApp:
    """An app that fails once its answer has begun."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("x")(scope, receive, send)
        raise error

    return app


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [BrokenResourceError(), ZeroDivisionError()])])
def test_an_answer_that_breaks_off_is_not_answered_again(error: Exception):
    with pytest.raises(type(error)):
        asyncio.run(ask_observed(break_off(error), "12345678"))


def test_a_reader_who_hung_up_is_no_failure():
    assert asyncio.run(ask_observed(break_off(ExceptionGroup("", [BrokenResourceError()])), "12345678")) == "12345678"


def test_failure_too_has_its_id_its_headers_and_its_count(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.api.compare", lambda *_: 1 / 0)
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    with TestClient(create_api(settings)) as client:
        failed = client.post("/v1/compare", files={"image": upload}, headers={"X-Request-ID": "12345678"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal")
        assert failed.headers["x-request-id"] == "12345678"
        assert failed.headers["x-content-type-options"] == "nosniff"
        assert 'l2d_requests_total{method="POST",route="/v1/compare",status="500"} 1.0' in client.get("/metrics").text


def test_a_line_of_the_log_holds_the_status_as_a_number_and_of_an_address_what_ends_no_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    caplog.set_level("INFO", "app.requests")
    with TestClient(create_api(settings), client=("\x9b31m\x85" + "x" * 99, 1)) as client:
        client.get("/v1/models/nobody")
    (line,) = (record for record in caplog.records if record.name == "app.requests")
    assert repr(line.status) == "404"
    assert 0 <= line.seconds < 60
    assert line.client == "\\x9b31m\\x85" + "x" * 59


def test_what_is_asked_all_the_time_fills_no_log(settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """Probes, and what belongs to the page, unless it fails."""
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    caplog.set_level("INFO", "app.requests")
    with TestClient(create_api(settings)) as client:
        for path in ("/healthz", "/readyz", "/metrics", "/docs", "/v1/models", "/favicon.ico"):
            client.get(path)
    assert [record.getMessage() for record in caplog.records if record.name == "app.requests"] == ["GET /v1/models", "GET /favicon.ico"]


def test_count_has_few_names_whatever_is_asked(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    with TestClient(create_api(settings)) as client:
        for number in range(3):
            client.get(f"/v1/models/m{number}")
            client.get(f"/v1/nothing/{number}")
            client.get(f"/somewhere/{number}")
            client.request(f"VERB{number}", "/healthz")
        told = client.get("/metrics").text
    lines = [line for line in told.splitlines() if line.startswith("l2d_requests_total")]
    assert sorted(lines) == [
        'l2d_requests_total{method="GET",route="/v1/models/{model}",status="404"} 3.0',
        'l2d_requests_total{method="GET",route="page",status="404"} 6.0',
        'l2d_requests_total{method="other",route="/healthz",status="405"} 3.0',
    ]
    assert 'l2d_request_seconds_bucket{le="30.0",route="/v1/models/{model}"} 3.0' in told
