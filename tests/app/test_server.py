"""The real thing: `python -m app` as a process of its own, asked over a socket."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.server import create_app
from app.settings import Settings

ROOT = Path(__file__).parents[2]
START_SECONDS = 120


def start(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("L2D_") and name != "PORT"}
        | {"L2D_WORKERS": "false"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_ready(client: httpx.Client) -> None:
    until = time.monotonic() + START_SECONDS
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def process(made_checkpoints: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(PORT="0", L2D_CHECKPOINTS=str(made_checkpoints))
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def url(process: subprocess.Popen[str]) -> str:
    """The address that the process prints."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    found = re.search(r"L2D is at (http://127\.0\.0\.1:\d+)", line)
    assert found, line
    return found[1]


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
    assert client.put("/v1/compare").json()["error"]["code"] == "method_not_allowed"
    assert "swagger" in client.get("/docs").text
    assert client.get("/openapi.json").json()["info"]["title"] == "L2D"


def test_page_gives_away_no_file(client: httpx.Client, made_checkpoints: Path):
    for path in ("/etc/passwd", str(made_checkpoints / "alien" / "card.json"), str(ROOT / "pyproject.toml")):
        for route in ("/gradio_api/file=", "/file=", "/gradio_api/file/", "/static-offline-docs/../../../../.."):
            assert client.get(f"{route}{path}").status_code in (401, 403, 404)


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


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [({"PORT": "many"}, "L2D_PORT or PORT: .*; got 'many'"), ({"L2D_MAX_PIXELS": "0"}, "L2D_MAX_PIXELS: .*; got '0'")],
)
def test_wrong_setting_ends_it_with_a_sentence(environment: dict[str, str], sentence: str):
    _, log = start(**environment).communicate(timeout=60)
    assert re.search(sentence, log)
    assert "Traceback" not in log


def test_taken_port_ends_it_with_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        _, log = start(L2D_PORT=port).communicate(timeout=60)
    assert f"Cannot listen on 127.0.0.1 port {port}" in log
    assert "Traceback" not in log


def test_own_name_of_the_port_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "1234")
    assert Settings().port == 1234
    monkeypatch.setenv("L2D_PORT", "4321")
    assert Settings().port == 4321
    assert Settings(port=1).port == 1


def test_by_default_only_this_machine_can_reach_it():
    assert Settings.model_fields["host"].default == "127.0.0.1"


def test_two_apps_share_nothing(settings: Settings, tmp_path: Path):
    async def create() -> None:
        first, second = create_app(settings), create_app(settings.model_copy(update={"checkpoints": tmp_path / "none"}))
        assert first.state.engine is not second.state.engine
        assert len(first.state.engine.catalog.entries()) == 4
        assert second.state.engine.catalog.entries() == []

    asyncio.run(create())
