"""Before the API can answer, and when it cannot."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from app.engine import Engine
from app.server import create_api
from app.settings import Settings
from l2d.runtime import OpenVino
from tests.app.conftest import post, refusal


def test_health_and_readiness(client: TestClient):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_not_ready_before_the_models_are_loaded(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    loaded = threading.Event()
    monkeypatch.setattr(Engine, "warm_up", lambda _: loaded.wait(20))
    with TestClient(create_api(settings)) as client:
        loading = client.get("/readyz")
        assert "Loading the models" in refusal(loading, 503, "unavailable")
        assert int(loading.headers["retry-after"]) > 0
        responses = client.get("/openapi.json").json()["paths"]["/readyz"]["get"]["responses"]
        assert "Retry-After" in responses["503"]["headers"]
        assert client.get("/healthz").status_code == 200
        loaded.set()


def test_while_the_server_starts_an_answer_waits_for_its_model(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    loaded = threading.Event()
    monkeypatch.setattr(Engine, "warm_up", lambda _: loaded.wait(60))
    with TestClient(create_api(settings)) as client:
        assert client.get("/readyz").status_code == 503
        assert post(client, upload, models="alien").status_code == 200
        responses = client.get("/openapi.json").json()["paths"]["/v1/compare"]["post"]["responses"]
        loaded.set()
    assert "starting" not in responses["503"]["description"]
    assert "starts" in responses["504"]["description"]


def test_without_any_model_the_api_says_so(settings: Settings, upload: bytes, tmp_path: Path):
    with TestClient(create_api(settings.model_copy(update={"checkpoints": tmp_path / "none"}))) as client:
        assert client.get("/v1/models").json() == {"models": [], "refused": []}
        assert "There is no model" in refusal(post(client, upload), 503, "unavailable")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Networks wait until it is set."""
    gate = threading.Event()
    real = OpenVino.__call__

    def wait(self: OpenVino, images: object) -> object:
        assert gate.wait(20)
        return real(self, images)

    monkeypatch.setattr(OpenVino, "__call__", wait)
    yield gate
    gate.set()


def test_full_gate_says_when_to_come_back(settings: Settings, upload: bytes, gate: threading.Event):
    app = create_api(settings.model_copy(update={"max_requests": 2}))
    with TestClient(app) as client, ThreadPoolExecutor(2) as others:
        waiting = [others.submit(post, client, upload, models=name) for name in ("alien", "the-teacher")]
        while app.state.engine._places._value:
            time.sleep(0.01)
        response = post(client, upload, models="alien")
        assert "All 2 places are taken" in refusal(response, 429, "busy")
        assert response.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        gate.set()
        assert [answer.result(20).status_code for answer in waiting] == [200, 200]


def test_late_answer_is_a_timeout(settings: Settings, upload: bytes, gate: threading.Event):
    with TestClient(create_api(settings.model_copy(update={"request_seconds": 0.2}))) as client:
        assert "not ready in time" in refusal(post(client, upload), 504, "too_slow")
        gate.set()


def test_failure_says_nothing_of_the_inside(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr(OpenVino, "__call__", fail)
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    with TestClient(create_api(settings), raise_server_exceptions=False) as client:
        assert "secret" not in refusal(post(client, upload, models="alien"), 500, "internal")


def test_a_client_that_leaves_within_its_body_is_no_failure_of_the_server(client: TestClient):
    sent: list[Message] = []

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/compare", "query_string": b"", "headers": headers}
    asyncio.run(client.app(scope, leave, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400
