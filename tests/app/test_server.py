"""The app as it is put together: the page in front of the API, and what holds for both."""

import asyncio
import inspect
import json
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from fastapi.testclient import TestClient
from gradio import HTML, component_meta, processing_utils
from pydantic import SecretStr

from app.catalog import Catalog
from app.jobs import Job
from app.queue import Queue
from app.server import _skip_stubs, _warm_up, create_api, create_app
from app.settings import Settings
from tests.app.conftest import START_SECONDS


@pytest.mark.parametrize("name", ["async_ssrf_protected_get", "async_ssrf_protected_download"])
def test_what_gradio_fetches_with_fetches_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str):
    # Of what another app left there.
    monkeypatch.setattr(processing_utils, name, None)

    async def fetch() -> None:
        create_app(settings)
        await getattr(processing_utils, name)("http://192.0.2.1/x.png")

    with pytest.raises(ValueError, match="Addresses are not fetched here"):
        asyncio.run(fetch())


def test_damaged_weights_of_models_that_nobody_asked_for_are_listed_no_more(
    settings: Settings, checkpoints: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    with TestClient(app := create_api(settings)) as client:
        until = time.monotonic() + START_SECONDS
        while not (refused := client.get("/v1/models").json()["refused"]):
            assert time.monotonic() < until
            time.sleep(0.1)
    assert [model["name"] for model in refused] == ["alien"]
    assert "alien/model.safetensors is not the file that its card describes" in caplog.text
    monkeypatch.setattr("app.server.prepare_figures", lambda: pytest.fail("a server that stops waits for no figure"))
    _warm_up(app.state.engine)


def test_what_is_asked_of_a_job_whose_worker_is_gone_ends_it_without_a_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.server.WATCH_SECONDS", 0.02)
    monkeypatch.setattr("app.queue.SILENCE_SECONDS", 0.2)
    failed, give_up = threading.Event(), Queue.give_up_unheard

    def fail_once(queue: Queue) -> list[Job]:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        return give_up(queue)

    monkeypatch.setattr(Queue, "give_up_unheard", fail_once)
    app = create_api(settings)
    with TestClient(app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000)) as client:
        assert failed.wait(START_SECONDS)
        queue = app.state.workshop.queue
        jobs = [queue.submit({"data": "shapes", "student": "resnet18", "method": "vanilla", "epochs": 3}).id for _ in range(3)]
        assert all(queue.claim("gone/cpu/1", job) for job in jobs)
        for verb, job in zip(("cancel", "stop"), jobs, strict=False):
            assert client.post(f"/v1/jobs/{job}/{verb}").status_code == 202
        until = time.monotonic() + 30
        while queue.count()["running"] > 1:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert [client.get(f"/v1/jobs/{job}").json()["state"] for job in jobs] == ["cancelled", "interrupted", "running"]


def test_a_closed_tab_frees_its_place(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    opened = threading.Event()
    monkeypatch.setattr(Catalog, "load", lambda *_: opened.wait(60) and pytest.fail("somebody still waits"))

    async def close() -> None:
        app = create_app(settings)
        transport = httpx.ASGITransport(app, root_path="/l2d")
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
            config = (await client.get("/l2d/config")).json()
        assert config["root"] == "http://127.0.0.1:7860/l2d", "where the page finds its parts below a proxy's path"
        grid = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "l2d-compare")
        sent = {"session_hash": "s", "component_id": grid, "fn_name": "compare", "data": {"example": "cat"}}
        headers = [(b"host", b"127.0.0.1:7860"), (b"content-type", b"application/json")]
        messages = [{"type": "http.request", "body": json.dumps(sent).encode()}]
        depths = []

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            while b"l2d_queue_depth 1.0" not in app.state.engine.metrics.export():
                await asyncio.sleep(0.01)
            depths.append(1)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            pass

        path = "/gradio_api/component_server"
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers}
        try:
            await asyncio.wait_for(app(scope | {"client": ("127.0.0.1", 1)}, receive, send), 30)
            assert depths
            assert b"l2d_queue_depth 0.0" in app.state.engine.metrics.export()
        finally:
            opened.set()
            app.state.engine.close()

    asyncio.run(close())


def test_while_gradio_is_imported_its_components_are_not_compared_with_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(component_meta, "create_or_modify_pyi", Mock(side_effect=component_meta.create_or_modify_pyi))
    monkeypatch.setattr(component_meta, "create_pyi", lambda *_: pytest.fail("compared"))
    before = inspect.getfile
    with _skip_stubs():
        type(HTML)("Part", (HTML,), {"__module__": HTML.__module__})
        assert inspect.getfile(Settings) == before(Settings)
    component_meta.create_or_modify_pyi.assert_called_once()
    assert inspect.getfile is before


def test_a_folder_that_cannot_be_written_is_told_once_though_nobody_asks(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("app.server.WATCH_SECONDS", 0.02)
    (tmp_path / "file").write_text("")
    with TestClient(create_api(settings.model_copy(update={"state": tmp_path / "file" / "below"}))):
        until = time.monotonic() + START_SECONDS
        while "see to L2D_STATE" not in caplog.text:
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.1)
    assert caplog.text.count("see to L2D_STATE") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_large_answers_are_packed_for_who_can_unpack_them(client: TestClient, method: str):
    packed, plain = (client.request(method, "/openapi.json", headers={"Accept-Encoding": taken}) for taken in ("gzip", "identity"))
    assert (packed.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
    assert 3 * int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert packed.text == plain.text
    assert "content-encoding" not in client.get("/healthz", headers={"Accept-Encoding": "gzip"}).headers


@pytest.mark.parametrize("changes", [{"token": SecretStr("sixteen-letters!")}, {"host": "0.0.0.0"}])
def test_a_server_with_a_token_shows_jobs_to_nobody_without_it(settings: Settings, changes: dict[str, object]):
    client = TestClient(create_api(settings.model_copy(update=changes)), base_url="http://127.0.0.1")
    assert client.get("/v1/jobs").status_code == 401
    assert client.get("/v1/jobs", headers={"Authorization": "Bearer none-that-it-knows"}).status_code == 403
    right = client.get("/v1/jobs", headers={"Authorization": "Bearer sixteen-letters!"})
    assert right.status_code == (200 if "token" in changes else 403)


def test_two_apps_share_nothing(settings: Settings, tmp_path: Path):
    async def create() -> None:
        first, second = create_app(settings), create_app(settings.model_copy(update={"checkpoints": tmp_path / "none"}))
        assert first.state.engine is not second.state.engine
        assert len(first.state.engine.catalog.entries()) == 4
        assert second.state.engine.catalog.entries() == []

    asyncio.run(create())
