"""What strangers can make Gradio keep, write and fail at: asked of a real server, whose log must hold no traceback."""

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio import routes
from gradio.data_classes import PredictBodyInternal

from app.server import create_app
from app.settings import Settings
from app.ui import bounds
from app.ui.bounds import LONGEST_NAME, MAX_FIELD_BYTES, MAX_FIELDS, MAX_UNREAD
from tests.app.conftest import run_server

PHOTOGRAPH = b"what a photograph holds" * 10_000


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's own, with its log."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def address(made_checkpoints: Path, temporary: Path, folder: Path) -> Iterator[str]:
    # One model, which is all that the server reads before it is ready.
    shutil.copytree(made_checkpoints / "student-l2d", folder / "checkpoints" / "student-l2d")
    with run_server(folder / "checkpoints", folder, TMPDIR=str(temporary), L2D_LOG="json") as address:
        yield address


def list_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def hang_up(address: str, path: str) -> None:
    """Send half of a form with a file, and go away."""
    host, port = address.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 999999\r\n\r\n"
    with socket.create_connection((host, int(port))) as sender:
        sender.sendall(head.encode() + b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n' + PHOTOGRAPH)
        time.sleep(0.5)


def find_part(config: dict[str, Any]) -> int:
    return next(int(part["id"]) for part in config["components"] if part["props"].get("elem_id") == "l2d-compare")


def test_photographs_of_the_page_reach_no_disk_even_if_their_sender_goes_away(temporary: Path, address: str, upload: bytes):
    with httpx.Client(base_url=address, timeout=60) as client:
        asked = {"component_id": str(find_part(client.get("/config").json())), "session_hash": "a", "fn_name": "compare"}
        request = {"request": json.dumps({"models": ["student-l2d"]})}
        before = list_files(temporary)
        answer = client.post("/gradio_api/component_server", files={"photo": upload}, data=asked | request)
        assert answer.json()["answer"]["image"]["width"] == 120
        hang_up(address, "/gradio_api/component_server")
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert list_files(temporary) == before
            time.sleep(0.1)


def test_a_page_that_nobody_asks_leaves_the_processor_alone(monkeypatch: pytest.MonkeyPatch):
    looks, sleep = [], asyncio.sleep

    async def count(seconds: float) -> None:
        looks.append(seconds)
        await sleep(seconds)

    async def watch() -> None:
        with gr.Blocks() as page:
            pass
        bounds.bound_page(page)
        looking = asyncio.create_task(page._queue.start_processing())
        await sleep(0.5)
        looking.cancel()

    monkeypatch.setattr(asyncio, "sleep", count)
    asyncio.run(watch())
    assert 0 < len(looks) < 50


def test_what_pages_leave_behind_is_bounded_and_what_names_nothing_is_refused(address: str):
    with httpx.Client(base_url=address, timeout=60) as client:
        config = client.get("/config").json()
        part, event = find_part(config), next(event["id"] for event in config["dependencies"] if event["queue"] and not event["inputs"])

        def ask(**fields: Any) -> httpx.Response:
            return client.post("/gradio_api/component_server", json={"component_id": part, "session_hash": "a", "data": {}} | fields)

        def join(name: str, number: int = event) -> httpx.Response:
            return client.post("/gradio_api/queue/join", json={"data": [], "fn_index": number, "session_hash": name})

        assert "models" in ask(fn_name="listing").json()
        unknown = [ask(fn_name="listing", component_id=10**6), join("a", 10**6), join("a", -1)]
        without = client.post("/gradio_api/component_server", files={"photo": b"x"}, data={"component_id": str(part)})
        assert [answer.json()["error"]["code"] for answer in [*unknown, without]] == ["bad_request"] * 4

        # Gradio would remember such names for as long as it runs.
        assert ask(fn_name="listing", session_hash="x" * 10**6).status_code == 413
        field = {"component_id": str(part), "fn_name": "listing", "session_hash": "x" * (MAX_FIELD_BYTES + 1)}
        assert client.post("/gradio_api/component_server", files={"photo": b"x"}, data=field).status_code == 400
        named = {"component_id": str(part), "fn_name": "listing", "session_hash": "a"}
        two = client.post("/gradio_api/component_server", files=[("photo", b"x"), ("photo", b"x")], data=named)
        many = {f"field {number}": "x" for number in range(MAX_FIELDS - len(named) + 1)}
        wide = client.post("/gradio_api/component_server", files={"photo": b"x"}, data=named | many)
        assert [two.status_code, wide.status_code] == [400, 400]
        assert [join("x" * length).status_code for length in (LONGEST_NAME, LONGEST_NAME + 1)] == [200, 400]

        # A page that asks and asks, and never reads what it is told.
        until = time.monotonic() + 30
        while (answer := join("never")).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert (answer.status_code, "does not read" in answer.text) == (503, True)
        told: list[str] = []
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "never"}) as stream:
            for line in stream.iter_lines():
                told += [line] if line else []
                if len(told) == MAX_UNREAD:
                    break
        assert any("process_completed" in line for line in told)
        assert join("another").status_code == 200

        # The log tells of none of this as a failure; the server's fixture looks.
        assert "session_not_found" in client.get("/gradio_api/queue/data", params={"session_hash": "nobody"}).text


def test_what_an_event_fails_of_is_a_line_of_the_log_without_what_the_page_sent(folder: Path, address: str):
    with httpx.Client(base_url=address, timeout=60) as client:
        event = next(event["id"] for event in client.get("/config").json()["dependencies"] if event["queue"] and len(event["inputs"]) > 1)
        client.post("/gradio_api/queue/join", json={"data": ["a secret"], "fn_index": event, "session_hash": "few"})
    until, log = time.monotonic() + 30, folder / "log"
    while "An event of the page failed" not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    line = next(line for line in map(json.loads, log.read_text().splitlines()) if "failed" in line["event"])
    assert line["event"].startswith("An event of the page failed: ValueError: An event handler (")
    assert "gradio/blocks.py" in line["event"]
    assert "a secret" not in log.read_text()


def test_of_pages_that_never_read_the_latest_are_remembered_and_so_many_events_wait(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    """In this process, where no event's turn comes."""
    monkeypatch.setattr(bounds, "MAX_WAITING", 3)
    monkeypatch.setattr(bounds, "MAX_PAGES", 5)

    async def visit() -> None:
        app = create_app(settings)
        (inner,) = [route.app for route in app.routes if isinstance(getattr(route, "app", None), routes.App)]
        queue, states = inner.get_blocks()._queue, inner.state_holder

        async def join(name: str) -> str:
            return (await queue.push(PredictBodyInternal(session_hash=name, fn_index=0, data=[]), None, None))[-1]

        assert [await join(f"first {number}") for number in range(4)] == ["success"] * 3 + ["queue_full"]
        for number in range(7):
            for events in queue.event_queue_per_concurrency_id.values():
                events.queue.clear()
            assert await join(f"then {number}") == "success"
            states[f"then {number}"]
        assert list(queue.pending_messages_per_session) == list(states.session_data) == [f"then {number}" for number in range(2, 7)]
        assert len(queue.pending_event_ids_session) <= 6, "with its messages a page's events are forgotten"

    asyncio.run(visit())
