"""What Prometheus reads."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.catalog import Catalog
from app.engine import Engine
from app.server import create_api
from app.settings import Settings

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
    assert numbers["process_open_fds", ""] > 0


def test_jobs_are_counted_by_state(client: TestClient):
    with client:
        queue = client.app.state.workshop.queue  # type: ignore[attr-defined]
        ids = [queue.submit({"data": "shapes"})[0].id for _ in range(3)]
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
    first.metrics.count_looks(hits=1, misses=0)
    assert b'l2d_looks_total{cache="hit"}' not in second.metrics.export()
    first.close()
    second.close()


def test_nothing_tells_of_a_picture(client: TestClient, upload: bytes):
    with client:
        client.post("/v1/compare", files={"image": ("holiday-in-rome.png", upload)}, data={"labels": "cat"})
        text = client.get("/metrics").text
    assert not re.search(r"holiday|cat\b|[0-9a-f]{64}", text.replace("category", ""))
