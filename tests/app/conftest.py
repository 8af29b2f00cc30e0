"""Small checkpoints, photographs, an engine and servers for every test of the app; no trained weight, no network."""

import base64
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app.catalog import Catalog
from app.engine import Engine
from app.server import create_api
from app.settings import Settings
from l2d.checkpoint import ModelCard, save_checkpoint
from l2d.model import create_model

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
LABELS = ("cat", "dog", "car", "cup", "sky")
# name -> role, method, backbone, labels, image size; names out of the alphabet's order, label sets that differ.
MODELS = {
    "the-teacher": ("teacher", "vanilla", "test_resnet", LABELS, 96),
    "student-vanilla": ("student", "vanilla", "test_efficientnet", LABELS, 64),
    "student-l2d": ("student", "l2d", "test_efficientnet", LABELS, 64),
    "alien": ("student", "vanilla", "test_byobnet", ("cat", "zebra"), 64),
}


def save_tiny(folder: Path, name: str) -> None:
    role, method, backbone, labels, size = MODELS[name]
    torch.manual_seed(len(name))
    model = create_model(backbone, len(labels), image_size=size, width=32, feedforward=64)
    card = ModelCard(name, name.title(), role, method, backbone, labels, size, width=32, feedforward=64, scores={"mAP": 12.5})
    save_checkpoint(folder / name, model, card)


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[None]:
    """Each network is converted once, and `shapes` drawn once, for all tests, their processes, and the servers that they start."""
    own = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L2D_CACHE", str((own if worker_id == "master" else own.parent) / "cache"))
        yield


@pytest.fixture(scope="session")
def made_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for name in MODELS:
        save_tiny(folder, name)
    return folder


@pytest.fixture
def checkpoints(made_checkpoints: Path, tmp_path: Path) -> Path:
    """A folder of checkpoints that a test may change."""
    return Path(shutil.copytree(made_checkpoints, tmp_path / "checkpoints"))


@pytest.fixture
def settings(checkpoints: Path) -> Settings:
    return configure(checkpoints)


@pytest.fixture
def write_table() -> Callable[..., None]:
    """Make a data set of six pictures and two labels; one of its files may be broken."""

    def write(folder: Path, broken: str | None = None) -> None:
        folder.mkdir(parents=True)
        lines = ["file,labels,split"]
        for number in range(6):
            Image.new("RGB", (40, 40), (number * 40, 0, 0)).save(folder / f"{number}.png")
            lines.append(f"{number}.png,{'dark' if number < 3 else 'light'},{'test' if number % 2 else 'train'}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        if broken:
            (folder / broken).write_bytes((folder / broken).read_bytes()[:60])

    return write


def configure(checkpoints: Path) -> Settings:
    """Settings that touch nothing outside a test's own folder, start no other process, and look at two pictures at once."""
    return Settings(
        checkpoints=checkpoints,
        default_models=("the-teacher", "student-vanilla", "student-l2d"),
        request_seconds=120,
        state=checkpoints.parent / "state",
        data=checkpoints.parent / "data",
        workers=False,
        threads=2,
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(Catalog(settings.checkpoints, settings.default_models, cache=settings.cache), settings)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def client(made_checkpoints: Path) -> Iterator[TestClient]:
    """The API without the page, started and ready; shared, so a test that changes anything starts its own."""
    app = create_api(configure(made_checkpoints))
    with TestClient(app) as client:
        while not app.state.engine.ready:
            time.sleep(0.01)
        yield client


@pytest.fixture
def address(made_checkpoints: Path, tmp_path: Path) -> Iterator[str]:
    """Address of a real server of the test's own."""
    with run_server(made_checkpoints, tmp_path) as address:
        yield address


@contextlib.contextmanager
def run_server(checkpoints: Path, folder: Path, **settings: str) -> Iterator[str]:
    """Address of a real server with a cache that is soon full; it lives through the tests, and logs no traceback."""
    own = {"L2D_CHECKPOINTS": str(checkpoints), "L2D_STATE": str(folder / "state"), "L2D_DATA": str(folder), "PORT": "0"}
    log = folder / "log"
    with log.open("w") as errors, start_server(errors, **own, L2D_CACHE_BYTES=str(2**20), **settings) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[3]
        with httpx.Client(base_url=address) as client:
            wait_until_ready(client)
        yield address
        assert server.poll() is None
        server.terminate()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def photograph() -> Image.Image:
    """A smooth picture without symmetry: every rotation and flip of it is another picture."""
    y, x = np.mgrid[0:90, 0:120] / 120
    return Image.fromarray((np.stack([x, y, (x * y + 0.2) / 1.2], -1) * 255).astype(np.uint8))


@pytest.fixture
def upload(photograph: Image.Image) -> bytes:
    """The photograph as PNG bytes."""
    return encode(photograph)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_flat(value: int, side: int) -> bytes:
    return encode(Image.new("RGB", (side, side), (value, 0, 255 - value)), compress_level=1)


def post(client: TestClient, data: bytes, path: str = "/v1/compare", **fields: object) -> httpx.Response:
    return client.post(path, files={"image": ("photo.png", data)}, data=fields)


def to_json(*pictures: bytes, **parameters: object) -> dict[str, object]:
    return {"instances": [{"image": {"b64": base64.b64encode(data).decode()}} for data in pictures], "parameters": parameters}


def refusal(response: httpx.Response, status: int, code: str) -> str:
    """The sentence of an error, after a look at its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"status", "code", "message", "details"}
    assert (error["status"], error["code"]) == (status, code)
    assert error["message"].endswith((".", "?"))
    return str(error["message"])


def start_server(log: IO[str] | int = subprocess.PIPE, code: str = "", **environment: str) -> subprocess.Popen[str]:
    """A server as a process of its own, without workers unless the test says so, after some code of the test's."""
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


@contextlib.contextmanager
def open_streams(client: httpx.Client) -> Iterator[list[Iterator[str]]]:
    """The page's stream and a job's, both begun; they would go on for as long as the server does."""
    job = client.post("/v1/jobs", json={"data": "shapes", "student": "resnet18", "method": "vanilla"}).json()["id"]
    with client.stream("GET", "/gradio_api/heartbeat/x") as page, client.stream("GET", f"/v1/jobs/{job}/events") as events:
        streams = [page.iter_text(), events.iter_text()]
        assert ["ALIVE" in next(streams[0]), "queued" in next(streams[1])] == [True, True]
        yield streams


def check_quiet(log: str) -> None:
    assert "Application shutdown complete" in log
    assert not re.search(r'(\[|"level": ")(warning|error)|Traceback', log), log
