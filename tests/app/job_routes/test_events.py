"""What a client that follows a job is told."""

import asyncio
import itertools
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.jobs import ENDED, Job, Progress
from app.records import JobFolder
from app.workshop import Workshop
from tests.app.job_routes.conftest import ORDER, order, refusal


def read_events(answer: httpx.Response) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, id, data) of every event of a stream that has ended."""
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return events


@pytest.fixture
def caught_up(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a stream finds nothing more to tell than the job's state."""
    found_none, read = threading.Event(), workshop.read

    def watch(job: str, place: int) -> list[tuple[dict[str, Any], int]]:
        lines = read(job, place)
        if not lines:
            found_none.set()
        return lines

    monkeypatch.setattr(workshop, "read", watch)
    return found_none


def test_the_document_tells_on_which_states_a_stream_is_closed(document: dict[str, Any]):
    told = document["paths"]["/v1/jobs/{job}/events"]["get"]["description"]
    assert all(f"`{state}`" in told for state in ENDED)


def test_events_tell_everything_since_the_start_and_then_what_follows(
    client: TestClient, workshop: Workshop, caught_up: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    def look_aside(_: Job) -> str:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return ""

    # Files are looked at in a thread: other requests would wait for a slow disk.
    monkeypatch.setattr(workshop, "explain_wait", look_aside)
    job = order(client)
    workshop.queue.claim("w", job)
    folder = JobFolder(workshop.places.jobs / job)
    folder.prepare()
    folder.append({"event": "stage", "stage": "student"})
    folder.append({"event": "epoch", "epoch": 1, "losses": {"bce": 1.5}})

    def go_on() -> None:
        assert caught_up.wait(60)
        workshop.queue.beat(job, "w", Progress(0.5))
        folder.append({"event": "epoch", "epoch": 2, "losses": {"bce": 1.0}})
        workshop.queue.finish(job, "w", "succeeded", "Done.")

    thread = threading.Thread(target=go_on)
    thread.start()
    answer = client.get(f"/v1/jobs/{job}/events")
    thread.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = read_events(answer)
    assert [kind for kind, _, _ in events] == ["stage", "epoch", "state", "epoch", "state"]
    assert events[-1][2]["state"] == "succeeded"
    assert [data["epoch"] for kind, _, data in events if kind == "epoch"] == [1, 2]

    again = read_events(client.get(f"/v1/jobs/{job}/events"))
    assert [kind for kind, _, _ in again] == ["stage", "epoch", "epoch", "state"], "reconnecting tells everything"
    rest = read_events(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": again[1][1]}))
    assert [data.get("epoch") for _, _, data in rest] == [2, 0], "or what came after the last one seen"
    for place in (5, 10**9, "5-ended"):
        assert read_events(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(place)})) == again
    refusal(client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(10**20)}), 422)


def test_a_stream_of_a_job_that_is_deleted_just_ends(client: TestClient, workshop: Workshop, caught_up: threading.Event):
    job = order(client)

    def delete() -> None:
        assert caught_up.wait(60)
        workshop.queue.cancel(job)
        workshop.delete(job)

    thread = threading.Thread(target=delete)
    thread.start()
    # A failure within the stream is raised here.
    strict = TestClient(client.app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000))
    events = read_events(strict.get(f"/v1/jobs/{job}/events"))
    thread.join()
    assert [kind for kind, _, _ in events][:1] == ["state"]


def test_of_a_job_with_more_lines_than_are_read_at_once_all_are_told_before_its_end(
    client: TestClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.records.MAX_BYTES_READ", 10)
    job = order(client)
    workshop.queue.claim("w", job)
    folder = JobFolder(workshop.places.jobs / job)
    folder.prepare()
    for epoch in (1, 2, 3):
        folder.append({"event": "epoch", "epoch": epoch})
    workshop.queue.finish(job, "w", "succeeded", "Done.")
    assert [kind for kind, _, _ in read_events(client.get(f"/v1/jobs/{job}/events"))] == ["epoch"] * 3 + ["state"]


def test_whoever_was_told_of_the_end_is_told_to_ask_no_more_until_it_goes_on(client: TestClient, workshop: Workshop):
    job = order(client)
    workshop.queue.claim("w", job)
    folder = JobFolder(workshop.places.jobs / job)
    folder.prepare()
    folder.append({"event": "attempt", "attempt": 1})
    workshop.queue.finish(job, "w", "failed", "No memory.")

    def ask(last: str) -> httpx.Response:
        return client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})

    (_, before, _), (_, last, data) = read_events(client.get(f"/v1/jobs/{job}/events"))
    assert data["state"] == "failed"
    assert [data["state"] for _, _, data in read_events(ask(before))] == ["failed"], "everything but the end was told"
    ended = ask(last)
    assert (ended.status_code, ended.content) == (204, b"")
    workshop.queue.resume(job)
    client.app.state.leaving.set()
    assert [data["state"] for _, _, data in read_events(ask(last))] == ["queued"], "it goes on, though nothing of it is written yet"
    client.app.state.leaving.clear()
    workshop.queue.claim("w", job)
    folder.append({"event": "attempt", "attempt": 2})
    workshop.queue.finish(job, "w", "succeeded", "Done.")
    assert [kind for kind, _, _ in read_events(ask(last))] == ["attempt", "state"]


def test_a_state_is_told_once_and_again_when_something_is_asked_of_its_job(
    client: TestClient, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("app.job_routes.POLL_SECONDS", 0.01)
    job = order(client)
    workshop.queue.claim("w", job)
    looks, read = itertools.count(1), workshop.read

    def watch(job: str, place: int) -> list[tuple[dict[str, Any], int]]:
        look = next(looks)
        if look == 3:
            workshop.queue.stop(job)
        elif look == 6:
            client.app.state.leaving.set()
        return read(job, place)

    monkeypatch.setattr(workshop, "read", watch)
    told = read_events(client.get(f"/v1/jobs/{job}/events"))
    assert [(kind, data["state"], data["request"]) for kind, _, data in told] == [("state", "running", None), ("state", "running", "stop")]
    assert [place for _, place, _ in told] == ["0", "0"], "neither told of the end"


def test_the_document_tells_which_answers_are_no_json_and_when_a_stream_is_told_to_its_end(document: dict[str, Any]):
    for end, kind in (("log", "text/plain"), ("events", "text/event-stream")):
        answers = document["paths"][f"/v1/jobs/{{job}}/{end}"]["get"]["responses"]
        assert ([*answers["200"]["content"]], "204" in answers) == ([kind], end == "events")


def test_head_of_a_stream_does_not_wait_for_its_job(client: TestClient):
    job = order(client)
    assert client.head(f"/v1/jobs/{job}").status_code == 200
    probed = client.head(f"/v1/jobs/{job}/events")
    assert (probed.status_code, probed.content) == (200, b"")
    assert client.head("/v1/jobs/0/events").status_code == 404


@pytest.mark.slow
def test_readers_of_events_who_hang_up_leave_no_error(address: str, tmp_path: Path):
    """The server's log is looked at when it has stopped."""
    job = httpx.post(f"{address}/v1/jobs", json=ORDER).json()["id"]
    folder = JobFolder(tmp_path / "state" / "jobs" / job)
    folder.prepare()
    for epoch in range(2000):
        folder.append({"event": "epoch", "epoch": epoch})
    for _ in range(20):
        with httpx.stream("GET", f"{address}/v1/jobs/{job}/events") as events:
            next(events.iter_lines())
    assert httpx.get(f"{address}/healthz").status_code == 200
