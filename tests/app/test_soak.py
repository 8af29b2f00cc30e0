"""Many requests in a row: what the server holds does not grow."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from tests.app.conftest import encode

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "20000"))
CLIENTS = 8
# After so many the caches are full and the allocator has what it needs; from then on nothing may grow.
SETTLED = REQUESTS // 4
# The share of a float that the allocator may add in the other three quarters.
GROWTH = 1.10


def read_process(client: httpx.Client) -> tuple[float, int]:
    """Memory in MiB and open files of the server."""
    text = client.get("/metrics").text
    memory, files = (
        float(re.search(rf"^{name} (\S+)", text, re.MULTILINE)[1]) for name in ("process_resident_memory_bytes", "process_open_fds")
    )
    return memory / 2**20, int(files)


def draw(number: int) -> bytes:
    return encode(Image.new("RGB", (64, 48), (number % 256, number // 256 % 256, 99)))


def ask(client: httpx.Client, number: int) -> int:
    """One request of a kind that depends on its number: new pictures, known ones, maps, bad ones, and what else there is."""
    kind = number % 8
    if kind == 0:
        return client.get("/v1/models").status_code
    if kind == 1:
        return client.get(f"/v1/models/nobody-{number}").status_code
    if kind == 2:
        return client.post("/v1/compare", files={"image": draw(number)[: 40 + number % 40]}).status_code
    picture = draw(number if kind < 5 else kind)
    labels = {"labels": "cat,dog"} if kind % 2 else {}
    return client.post("/v1/compare", files={"image": picture}, data={"models": "alien,student-l2d", **labels}).status_code


@pytest.mark.slow
def test_many_requests_leave_nothing_behind(address: str):
    limits = httpx.Limits(max_connections=CLIENTS)
    with httpx.Client(base_url=address, timeout=60, limits=limits) as client, ThreadPoolExecutor(CLIENTS) as clients:
        statuses = list(clients.map(lambda number: ask(client, number), range(SETTLED)))
        memory, files = read_process(client)
        statuses += clients.map(lambda number: ask(client, number), range(SETTLED, REQUESTS))
        memory_after, files_after = read_process(client)
    print(f"\n{REQUESTS} requests: {memory:.0f} -> {memory_after:.0f} MiB, {files} -> {files_after} open files")
    assert {status: statuses.count(status) for status in set(statuses)}.keys() <= {200, 400, 404, 415}
    assert statuses.count(200) > REQUESTS // 2
    assert memory_after < GROWTH * memory
    assert files_after <= files + 2
