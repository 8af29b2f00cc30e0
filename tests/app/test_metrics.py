"""What Prometheus reads."""

import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.catalog import Catalog
from app.engine import DECODERS, Engine
from app.server import create_api
from app.settings import Settings
from app.ticket import Ticket

Numbers = dict[tuple[str, str], float]


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """An app of its own, whose warm-up counts nothing."""
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    return TestClient(create_api(settings))


def read(client: TestClient) -> Numbers:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(sample.name, ",".join(sample.labels.values())): sample.value for family in families for sample in family.samples}


def test_requests_stages_and_cache_are_counted(client: TestClient, upload: bytes):
    with client:
        for labels in ("cat", "cat", "sky"):
            answer = client.post("/v1/compare", files={"image": upload}, data={"models": "alien,student-l2d", "labels": labels})
            assert answer.status_code == 200
        client.post("/v1/models/nobody:predict", files={"image": upload})
        numbers = read(client)
    assert numbers["l2d_requests_total", "POST,/v1/compare,200"] == 3
    assert numbers["l2d_requests_total", "POST,/v1/models/{model}:predict,404"] == 1
    assert numbers["l2d_request_seconds_count", "/v1/compare"] == 3
    assert numbers["l2d_looks_total", "miss"] == 2
    assert numbers["l2d_looks_total", "hit"] == 4
    assert [numbers["l2d_stage_seconds_count", stage] for stage in ("decode", "network", "maps")] == [1, 2, 3]
    assert all(numbers["l2d_stage_seconds_sum", stage] > 0 for stage in ("decode", "network", "maps"))
    assert numbers["l2d_queue_depth", ""] == 0
    # Of the process itself only Linux tells.
    assert sys.platform != "linux" or numbers["process_open_fds", ""] > 0


def test_a_batch_is_the_labels_whose_maps_one_pass_makes(client: TestClient, upload: bytes):
    with client:
        # Four at once; the next request finds all but one there, the last one all.
        for labels in ("cat,dog,sky,car", "car,cup,cat", "cup"):
            answer = client.post("/v1/compare", files={"image": upload}, data={"models": "student-l2d", "labels": labels})
            assert answer.status_code == 200, answer.text
        numbers = read(client)
    assert (numbers["l2d_batch_size_count", ""], numbers["l2d_batch_size_sum", ""]) == (2, 5)
    assert [numbers["l2d_batch_size_bucket", end] for end in ("1.0", "2.0", "4.0", "80.0", "+Inf")] == [1, 1, 2, 2, 2]


def test_figures_and_waiting_are_timed(client: TestClient, upload: bytes):
    with client:
        for format in ("png", "npz"):
            form = {"models": "alien", "labels": "cat", "format": format}
            assert client.post("/v1/compare", files={"image": upload}, data=form).status_code == 200
        numbers = read(client)
    assert numbers["l2d_stage_seconds_count", "figure"] == 1
    # For decoding, reading the network, asking it and maps the first time, and twice for what makes the file.
    assert numbers["l2d_stage_seconds_count", "wait"] == 6


def test_waiting_is_timed_until_a_thread_is_free(settings: Settings):
    engine = Engine(Catalog(settings.checkpoints), settings)
    begun, go_on = threading.Barrier(DECODERS + 1), threading.Event()

    def occupy() -> bool:
        begun.wait(60)
        return go_on.wait(60)

    with ThreadPoolExecutor(DECODERS + 1) as clients:
        for _ in range(DECODERS):
            clients.submit(engine.run_aside, Ticket(60), occupy)
        begun.wait(60)
        before = engine.metrics.export()
        waiting = clients.submit(engine.run_aside, Ticket(60), list)
        time.sleep(0.5)
        go_on.set()
        waiting.result(60)
    waited = [
        float(re.findall(r'l2d_stage_seconds_sum{stage="wait"} (\S+)', text.decode())[0]) for text in (before, engine.metrics.export())
    ]
    assert waited[1] - waited[0] > 0.2
    engine.close()


def test_jobs_are_counted_by_state(client: TestClient):
    with client:
        queue = client.app.state.workshop.queue  # type: ignore[attr-defined]
        ids = [queue.submit({"data": "shapes"}).id for _ in range(3)]
        queue.cancel(ids[0])
        numbers = read(client)
    assert numbers["l2d_jobs", "queued"] == 2
    assert numbers["l2d_jobs", "cancelled"] == 1
    assert numbers["l2d_jobs", "running"] == 0


def test_queue_that_cannot_be_read_hides_its_own_numbers_alone(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    (tmp_path / "file").write_text("")
    with TestClient(create_api(settings.model_copy(update={"state": tmp_path / "file" / "below"}))) as client:
        names = {name for name, _ in read(client)}
    assert "l2d_jobs" not in names
    assert "l2d_queue_depth" in names


def test_two_apps_count_for_themselves(settings: Settings):
    first, second = (Engine(Catalog(settings.checkpoints), settings) for _ in range(2))
    first.metrics.looks.labels("hit").inc()
    assert b'l2d_looks_total{cache="hit"}' not in second.metrics.export()
    first.close()
    second.close()


def test_nothing_tells_of_a_picture(client: TestClient, upload: bytes):
    with client:
        client.post("/v1/compare", files={"image": ("holiday-in-rome.png", upload)}, data={"labels": "cat"})
        text = client.get("/metrics").text
    assert not re.search(r"holiday|cat\b|[0-9a-f]{64}", text.replace("category", ""))
