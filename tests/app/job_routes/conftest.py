"""Jobs over HTTP, without the page and without an engine: a server of the test's own, and one that all share who only read."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.access import Access
from app.api import add_api, refuse_rest
from app.catalog import Catalog
from app.job_routes import add_jobs
from app.places import Places
from app.workshop import Workshop

ORDER = {"data": "shapes", "student": "resnet18", "method": "vanilla", "epochs": 3}


@pytest.fixture
def places(tmp_path: Path, checkpoints: Path) -> Places:
    return Places(tmp_path / "state", tmp_path / "data", checkpoints)


@pytest.fixture
def workshop(places: Places) -> Workshop:
    return Workshop(places, Catalog(places.checkpoints, made=places.models))


def serve(workshop: Workshop, token: str | None = None) -> TestClient:
    app = FastAPI()
    app.state.workshop, app.state.access, app.state.leaving = workshop, Access(token), threading.Event()
    add_api(app)
    add_jobs(app)
    refuse_rest(app)
    return TestClient(app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000), raise_server_exceptions=False)


@pytest.fixture
def client(workshop: Workshop) -> Iterator[TestClient]:
    with serve(workshop) as client:
        yield client


@pytest.fixture(scope="session")
def untouched(made_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Shared by tests of what is refused, or only read: none of them changes anything."""
    folder = tmp_path_factory.mktemp("untouched")
    places = Places(folder / "state", folder / "data", Path(shutil.copytree(made_checkpoints, folder / "checkpoints")))
    return Workshop(places, Catalog(places.checkpoints, made=places.models))


@pytest.fixture(scope="session")
def reader(untouched: Workshop) -> Iterator[TestClient]:
    """As `client`, of the shared places."""
    with serve(untouched) as client:
        yield client


@pytest.fixture(scope="session")
def guarded(untouched: Workshop) -> Iterator[TestClient]:
    """As `reader`, of a server that wants a token."""
    with serve(untouched, token="secret") as client:
        yield client


@pytest.fixture(scope="session")
def document(reader: TestClient) -> dict[str, Any]:
    """What the server tells of its routes."""
    return reader.get("/openapi.json").json()


def order(client: TestClient, **changes: Any) -> str:
    answer = client.post("/v1/jobs", json=ORDER | changes)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["message"]
