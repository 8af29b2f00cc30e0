"""The real thing: `python -m app` as a process of its own, asked over a socket."""

import asyncio
import base64
import contextlib
import errno
import inspect
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from unittest.mock import Mock

import httpx
import pytest
from fastapi.testclient import TestClient
from gradio import HTML, component_meta, processing_utils
from PIL import Image
from pydantic import SecretStr, ValidationError

from app.__main__ import listen, main
from app.catalog import Catalog
from app.server import _skip_stubs, create_api, create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


def start(log: IO[str] | int = subprocess.PIPE, code: str = "", **environment: str) -> subprocess.Popen[str]:
    """A server as a process of its own, after some code of the test's."""
    foreign = {name for name in os.environ if name.startswith("L2D_") and name != "L2D_CACHE"} | {"PORT"}
    own = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}\nfrom app.__main__ import main\nmain()"] if code else [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=own | {"L2D_WORKERS": "false"} | environment,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + START_SECONDS
    while client.get("/readyz", timeout=60).status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def url(made_checkpoints: Path, state: Path, log: Path) -> Iterator[str]:
    """The address that a server prints; it is shared, and writes its log to a file. Ctrl-C ends it and its streams, at once and quietly."""
    with log.open("w") as file:
        process = start(file, PORT="0", L2D_CHECKPOINTS=str(made_checkpoints), L2D_STATE=str(state), L2D_LOG="json")
        assert process.stdout is not None
        found = re.search(r"L2D is at (http://127\.0\.0\.1:\d+)", process.stdout.readline())
        assert found, log.read_text()
        yield found[1]
        told = len(log.read_text())
        with httpx.Client(base_url=found[1], timeout=60) as client, open_streams(client) as streams:
            process.send_signal(signal.SIGINT)
            assert [list(stream) for stream in streams] == [[], []]
        process.communicate(timeout=60)
        check_quiet(log.read_text()[told:])


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        wait_until_ready(client)
        yield client


def test_it_compares_and_shows_its_page(client: httpx.Client, upload: bytes):
    answer = client.post("/v1/compare", files={"image": upload}, data={"labels": "cat"}).json()
    assert [model["name"] for model in answer["models"]] == ["alien", "student-l2d", "student-vanilla", "the-teacher"]
    assert all(model["maps"]["cat"] for model in answer["models"])
    page = client.get("/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert page.headers["x-content-type-options"] == "nosniff"


def test_page_in_front_hides_no_route(client: httpx.Client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/v1/nothing").json()["error"]["code"] == "unknown_route"
    probed = client.head("/healthz")
    assert (probed.status_code, probed.content, probed.headers["content-length"]) == (200, b"", "15")
    assert client.put("/v1/compare").json()["error"]["code"] == "method_not_allowed"
    assert "swagger" in client.get("/docs").text
    for path in ("/docs", "/openapi.json"):
        head, whole = client.head(path), client.get(path)
        assert (head.status_code, head.headers["content-type"], head.content) == (200, whole.headers["content-type"], b"")
    assert client.get("/openapi.json").json()["info"]["title"] == "L2D"


def test_page_gives_away_no_file(client: httpx.Client, made_checkpoints: Path, state: Path):
    assert client.get("/v1/jobs").json()["jobs"] == []
    weights = made_checkpoints / "alien" / "model.safetensors"
    for path in (Path("/etc/passwd"), state / "jobs.sqlite", weights, weights.with_name("card.json"), ROOT / "pyproject.toml"):
        assert path.is_file()
        for sent in (str(path), f"../../../../../../..{path}", str(path).replace("/", "%2F"), str(path).lstrip("/")):
            for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/", "assets/", "svelte/", "static-offline-docs/", "/"):
                answer = client.get(f"/{route}{sent}")
                assert answer.status_code in (400, 401, 403, 404, 307) or "text/html" in answer.headers["content-type"], (route, sent)
                assert path.read_bytes()[:40] not in answer.content


@pytest.fixture
def canary() -> Iterator[socket.socket]:
    """Listens where nobody has any business; a test that ends with somebody at the door fails."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_page_fetches_no_address(client: httpx.Client, canary: socket.socket):
    address = f"http://127.0.0.1:{canary.getsockname()[1]}/x.png"
    for route in ("file=", "proxy=", "file/"):
        assert client.get(f"/gradio_api/{route}{address}", follow_redirects=False).status_code == 404
    config = client.get("/config").json()
    file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
    # Of many alike, three: every failure fills the log, which nobody reads here.
    for event in [event for event in config["dependencies"] if event["inputs"]][1:4]:
        body = {"data": [file] * len(event["inputs"]), "fn_index": event["id"], "session_hash": f"s{event['id']}"}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as answers:
            assert any("process_completed" in line for line in answers.iter_lines())
    grid = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "l2d-compare")
    sent = {"session_hash": "s", "component_id": grid, "fn_name": "compare", "data": file}
    assert "error" in client.post("/gradio_api/component_server", json=sent).json()


@pytest.mark.parametrize("name", ["async_ssrf_protected_get", "async_ssrf_protected_download"])
def test_what_gradio_fetches_with_fetches_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str):
    # Of what another app left there.
    monkeypatch.setattr(processing_utils, name, None)

    async def fetch() -> None:
        create_app(settings)
        await getattr(processing_utils, name)("http://192.0.2.1/x.png")

    with pytest.raises(ValueError, match="Addresses are not fetched here"):
        asyncio.run(fetch())


@pytest.mark.parametrize(
    "route", ["/gradio_api/upload", "/gradio_api/run-history/connect", "/gradio_api/vibe-edit", "/gradio_api/process_recording", "/login"]
)
def test_page_takes_no_file_and_has_no_back_door(client: httpx.Client, route: str):
    answer = client.post(route, files={"files": b"x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_route"


@pytest.mark.parametrize("route", ["/", "/config", "/v1/models", "/gradio_api/queue/join"])
def test_no_other_site_may_read_an_answer(client: httpx.Client, route: str):
    evil = {"Host": "l2d.example", "Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.get(route, headers=evil), client.options(route, headers=evil), client.post(route, headers=evil)):
        assert [name for name in answer.headers if name.startswith("access-control")] == []


def test_answers_carry_the_id_that_the_log_has(client: httpx.Client, log: Path, upload: bytes):
    before = log.stat().st_size
    given = client.post("/v1/compare", files={"image": ("secret-name.png", upload)}, headers={"X-Request-ID": "given-by-a-proxy"})
    made = client.get("/v1/models/%0aevil?token=secret-query")
    forged = client.get("/v1/models", headers={"X-Request-ID": "two words"})
    until = time.monotonic() + 10
    while forged.headers["x-request-id"] not in (text := log.read_text()[before:]):
        assert time.monotonic() < until
    lines = {line.get("request_id"): line for line in map(json.loads, text.splitlines())}
    assert given.headers["x-request-id"] == "given-by-a-proxy"
    assert lines["given-by-a-proxy"]["event"] == "POST /v1/compare"
    assert (lines["given-by-a-proxy"]["status"], lines["given-by-a-proxy"]["level"]) == (200, "info")
    assert lines[made.headers["x-request-id"]]["status"] == 404
    assert "two words" not in text
    assert re.fullmatch("[0-9a-f]{32}", forged.headers["x-request-id"])
    assert "secret" not in text


def send_zeros(client: httpx.Client, count: int) -> tuple[httpx.Response | None, int]:
    """Send a form without saying how long it is; gives the answer, if it could be read, and how many bytes left."""
    sent = 0

    def stream() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        while sent < count:
            sent += 2**20
            yield bytes(2**20)

    try:
        response = client.post("/v1/compare", content=stream(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return None, sent
    return response, sent


def test_too_large_a_body_gets_its_sentence(client: httpx.Client):
    response, _ = send_zeros(client, 30 * 2**20)
    assert response is not None
    assert response.status_code == 413
    assert "at most 20971520 bytes" in response.json()["error"]["message"]


def test_endless_body_is_hung_up_on(client: httpx.Client):
    response, sent = send_zeros(client, 400 * 2**20)
    assert response is None or response.status_code == 413
    assert sent < 200 * 2**20
    assert client.get("/healthz").status_code == 200


def test_slow_sender_holds_up_nobody(url: str, client: httpx.Client, upload: bytes):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(
            b"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x"
        )
        assert client.post("/v1/compare", files={"image": upload}).status_code == 200
    assert client.get("/healthz").status_code == 200


@contextlib.contextmanager
def open_streams(client: httpx.Client) -> Iterator[list[Iterator[str]]]:
    """The page's stream and a job's, both begun; they would go on for as long as the server does."""
    job = client.post("/v1/jobs", json={"data": "shapes", "student": "resnet18", "method": "vanilla"}).json()["id"]
    with client.stream("GET", "/gradio_api/heartbeat/x") as page, client.stream("GET", f"/v1/jobs/{job}/events") as events:
        streams = [page.iter_text(), events.iter_text()]
        assert ["ALIVE" in next(streams[0]), "queued" in next(streams[1])] == [True, True]
        yield streams


def test_terminate_ends_streams_at_once_lets_a_running_request_end_and_tells_of_no_error(made_checkpoints: Path, tmp_path: Path):
    process = start(PORT="0", L2D_CHECKPOINTS=str(made_checkpoints), L2D_STATE=str(tmp_path))
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    instances = [{"image": {"b64": base64.b64encode(encode_flat(value, 4000)).decode()}} for value in range(3)]
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(1) as other:
        wait_until_ready(client)
        with open_streams(client) as streams:
            running = other.submit(httpx.post, f"{url}/v1/models/alien:predict", json={"instances": instances}, timeout=60)
            while "l2d_queue_depth 1.0" not in client.get("/metrics").text:
                assert not running.done()
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            ready, alive = client.get("/readyz"), client.get("/healthz")
            assert not running.done()
            assert (ready.status_code, ready.json()["error"]["code"], alive.status_code) == (503, "unavailable", 200)
            # Raises where one is cut off in the middle; a server that waited for one, until its patience ended, says so in its log.
            assert [list(stream) for stream in streams] == [[], []]
        assert len(running.result(60).json()["predictions"]) == 3
        _, log = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    check_quiet(log)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def check_quiet(log: str) -> None:
    assert "Application shutdown complete" in log
    assert not re.search(r'(\[|"level": ")(warning|error)|Traceback', log), log


def encode_flat(value: int, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 255 - value)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_damaged_weights_of_models_that_nobody_asked_for_are_listed_no_more(
    settings: Settings, checkpoints: Path, caplog: pytest.LogCaptureFixture
):
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    with TestClient(create_api(settings)) as client:
        until = time.monotonic() + START_SECONDS
        while not (refused := client.get("/v1/models").json()["refused"]):
            assert time.monotonic() < until
            time.sleep(0.1)
    assert [model["name"] for model in refused] == ["alien"]
    assert "alien/model.safetensors is not the file that its card describes" in caplog.text


def test_client_that_goes_away_frees_its_place(url: str, client: httpx.Client):
    body = json.dumps({"instances": [{"image": {"b64": base64.b64encode(encode_flat(value, 3000)).decode()}} for value in range(8)]})
    host, port = url.removeprefix("http://").split(":")
    head = f"POST /v1/models/alien:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(head.encode() + body.encode())
        while "l2d_queue_depth 1.0" not in client.get("/metrics").text:
            time.sleep(0.01)
    began = time.monotonic()
    while "l2d_queue_depth 0.0" not in client.get("/metrics").text:
        time.sleep(0.01)
    freed = time.monotonic() - began
    looks = float(re.search(r'l2d_looks_total\{cache="miss"\} (\S+)', client.get("/metrics").text)[1])
    began = time.monotonic()
    whole = client.post("/v1/models/alien:predict", content=body, headers={"Content-Type": "application/json"})
    assert len(whole.json()["predictions"]) == 8
    # The pictures that nobody waited for were not looked at: most of the work came with the second request.
    after = float(re.search(r'l2d_looks_total\{cache="miss"\} (\S+)', client.get("/metrics").text)[1])
    assert after - looks > 4
    assert freed < (time.monotonic() - began) / 2


# A worker that does not leave, which tells its number.
STUBBORN = """
import signal, subprocess, sys
from app import supervisor
code = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('worker', os.getpid(), flush=True); time.sleep(60)"
supervisor.start_process = lambda *_: subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
"""
# An engine that does not come to its end.
ENDLESS = "import time; from app.engine import Engine; Engine.close = lambda _: time.sleep(60)"


@pytest.mark.slow
@pytest.mark.parametrize(("code", "whole"), [(STUBBORN, True), (ENDLESS, False)], ids=["worker", "engine"])
def test_terminate_takes_less_than_ten_seconds_whatever_does_not_end(made_checkpoints: Path, tmp_path: Path, code: str, whole: bool):
    settings = {"L2D_WORKERS": "true", "L2D_CHECKPOINTS": str(made_checkpoints), "L2D_STATE": str(tmp_path)}
    process = start(code=code, PORT="0", **(settings if whole else settings | {"L2D_WORKERS": "false"}))
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(1 + whole)]
    port = re.search(r":(\d+)  ", "".join(told))
    assert port
    with socket.create_connection(("127.0.0.1", int(port[1]))) as slow:
        slow.sendall(b"POST /v1/compare HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n")
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
    assert ("Application shutdown complete" in log) == whole
    assert process.returncode == (-signal.SIGTERM if whole else 128 + signal.SIGTERM)
    for worker in re.findall(r"worker (\d+)", "".join(told)):
        assert not Path(f"/proc/{worker}").exists()


def test_what_is_asked_of_a_job_whose_worker_is_gone_ends_it_without_a_worker(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.server.WATCH_SECONDS", 0.02)
    monkeypatch.setattr("app.queue.SILENCE_SECONDS", 0.2)
    app = create_api(settings)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        queue = app.state.workshop.queue
        jobs = [queue.submit({"data": "shapes", "student": "resnet18", "method": "vanilla", "epochs": 3})[0].id for _ in range(3)]
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
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:7860") as client:
            config = (await client.get("/config")).json()
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


@pytest.mark.slow
def test_terminate_ends_it_cleanly(made_checkpoints: Path):
    process = start(PORT="0", L2D_CHECKPOINTS=str(made_checkpoints))
    assert process.stdout is not None
    assert "L2D is at" in process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in log
    assert "Application shutdown complete" in log


def test_while_gradio_is_imported_its_components_are_not_compared_with_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(component_meta, "create_or_modify_pyi", Mock(side_effect=component_meta.create_or_modify_pyi))
    monkeypatch.setattr(component_meta, "create_pyi", lambda *_: pytest.fail("compared"))
    before = inspect.getfile
    with _skip_stubs():
        type(HTML)("Part", (HTML,), {"__module__": HTML.__module__})
        assert inspect.getfile(Settings) == before(Settings)
    component_meta.create_or_modify_pyi.assert_called_once()
    assert inspect.getfile is before


def test_in_a_container_it_ends_when_told_to_while_it_starts():
    # The system keeps a signal from process 1 that it does not handle; any other process would end by the signal.
    first = "import os, signal, app.__main__ as told\nos.getpid = lambda: 1"
    process = start(code=f"{first}\ntold._read_settings = lambda: signal.raise_signal(signal.SIGTERM)")
    _, log = process.communicate(timeout=60)
    assert (process.returncode, log) == (0, "")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PORT": "many", "L2D_MAX_PIXELS": "0"}, "L2D_PORT or PORT: .*; got 'many'.*L2D_MAX_PIXELS: .*; got '0'"),
        ({"L2D_MAX_PIXELS": "200000000", "L2D_TOKEN": "my-secret"}, "L2D_MAX_PIXELS: .* 178956970.*L2D_TOKEN: .* at least 16"),
        ({"L2D_HOST": ""}, "L2D_HOST: .* at least 1 character"),
        ({"L2D_CHECKPOINTS": str(Path(__file__) / "x")}, "L2D_CHECKPOINTS: cannot be read: Not a directory; got '.*/x'"),
        ({"L2D_STATE": __file__}, "L2D_STATE: cannot be read: Not a directory; got "),
        ({"L2D_DATA": __file__}, "L2D_DATA: cannot be read: Not a directory; got "),
        ({"L2D_CACHE": __file__}, "L2D_CACHE: cannot be read: Not a directory; got "),
        ({"L2D_THREADS": "100000"}, "L2D_THREADS: Input should be less than or equal to 1024; got '100000'"),
        (
            {"L2D_STATE": "", "L2D_CACHE": "", "L2D_DATA": "", "L2D_CHECKPOINTS": ""},
            "CHECKPOINTS.*STATE.*DATA.*CACHE: expected a folder; got ''",
        ),
        ({"L2D_REQUEST_SECONDS": "inf"}, "L2D_REQUEST_SECONDS: .* 86400; got 'inf'"),
        ({"L2D_HOST": "no.invalid", "L2D_PORT": "1"}, r"^Cannot listen on no.invalid port 1: [^(]*\. Choose others with L2D_HOST, "),
    ],
)
def test_wrong_setting_ends_it_with_a_sentence(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in [*(name for name in os.environ if name.startswith("L2D_")), "PORT"]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["app"])
    with pytest.raises(SystemExit, match=r"[12]"):
        main()
    told, log = capsys.readouterr()
    assert re.search(sentence, log, re.DOTALL)
    assert told == ""
    assert "my-secret" not in log


def test_no_place_for_temporary_files_ends_it_with_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(os, "write", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(SystemExit, match="1"):
        main()
    assert re.fullmatch(r"Cannot keep temporary files: No usable .*'/tmp'.*\. Set TMPDIR to one that [^\n]*\n", capsys.readouterr().err)


def test_taken_port_ends_it_with_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        _, log = start(L2D_PORT=port).communicate(timeout=60)
    assert f"Cannot listen on 127.0.0.1 port {port}" in log
    assert "Traceback" not in log


def test_answers_are_sent_at_once():
    with listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_own_name_of_the_port_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "1234")
    assert Settings().port == 1234
    monkeypatch.setenv("L2D_PORT", "4321")
    assert Settings().port == 4321
    assert Settings(port=1).port == 1


@pytest.mark.parametrize("token", ["fifteen-letters", "abcdefghijklmnop\n", "two words of mine", "schlüssel-schlüssel"])
def test_a_token_is_what_a_header_can_carry(token: str):
    with pytest.raises(ValidationError, match="expected at least 16 letters, digits and signs of ASCII, without blanks and line breaks"):
        Settings.model_validate({"token": token})
    assert Settings.model_validate({"token": "sixteen-letters!"}).token


def test_names_of_models_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_DEFAULT_MODELS", "one, two,")
    assert Settings().default_models == ("one", "two")


def test_by_default_only_this_machine_can_reach_it():
    assert Settings.model_fields["host"].default == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_server_that_others_can_reach_tells_the_token_that_it_wants_and_an_address_of_this_machine(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    served: list[Any] = []

    def serve(server: Any, sockets: list[socket.socket]) -> None:
        sockets[0].close()
        served.append(server)

    monkeypatch.setattr("app.__main__._Server.run", serve)
    monkeypatch.setattr("app.__main__.configure_logs", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["app"])
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("L2D_HOST", host)
    main()
    (server,), told = served, capsys.readouterr().out
    assert server.url.startswith("http://127.0.0.1:")
    token = server.settings.token
    assert told == "" if token is None else told.endswith(f": {token.get_secret_value()}\n")
    assert (token is None) == (host == "127.0.0.1")


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
