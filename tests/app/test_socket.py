"""The real thing: `python -m app` as a process of its own, asked over a socket."""

import base64
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import ROOT, check_quiet, encode_flat, open_streams, start_server, wait_until_ready


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
        process = start_server(file, PORT="0", L2D_CHECKPOINTS=str(made_checkpoints), L2D_STATE=str(state), L2D_LOG="json")
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
