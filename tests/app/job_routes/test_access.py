"""Who may order, show and change jobs over HTTP, and what the document tells of that."""

import asyncio
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.workshop import Workshop
from tests.app.job_routes.conftest import refusal, serve

ROUTES = [
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/datasets"),
    *(("GET", f"/v1/jobs/0{rest}") for rest in ("", "/log", "/events", "/probes/0001")),
    *(("POST", f"/v1/jobs/0/{verb}") for verb in ("cancel", "stop", "resume")),
    ("DELETE", "/v1/jobs/0"),
    ("DELETE", "/v1/models/the-teacher"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_job_routes_need_the_token(guarded: TestClient, method: str, path: str):
    without = guarded.request(method, path)
    assert "Authorization: Bearer" in refusal(without, 401)
    assert without.json()["error"]["code"] == "token_needed"
    assert without.headers["www-authenticate"] == "Bearer"
    assert "not the token" in refusal(guarded.request(method, path, headers={"Authorization": "Bearer wrong"}), 403)
    right = guarded.request(method, path, headers={"Authorization": "Bearer secret", "Host": "example.org"})
    assert right.status_code not in (401, 500)
    assert "token" not in right.text


def test_head_needs_the_token_too(workshop: Workshop):
    with serve(workshop, token="secret") as client:
        assert client.head("/v1/jobs").status_code == 401


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 403)])
def test_of_an_order_without_the_token_no_body_is_read(guarded: TestClient, token: str | None, status: int):
    sent, read = [(b"authorization", f"Bearer {token}".encode())] if token else [], []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), *sent],
    }
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        read.append(b"[" * 2**20)
        return {"type": "http.request", "body": read[-1], "more_body": len(read) < 100}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    asyncio.run(guarded.app(scope, receive, send))
    assert (told[0]["status"], read) == (status, [])


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_other_sites_and_machines_stay_out(reader: TestClient, method: str, path: str):
    assert "L2D_TOKEN" in refusal(reader.request(method, path, headers={"Host": "evil.example"}), 403)
    assert "evil.example" in refusal(reader.request(method, path, headers={"Origin": "http://evil.example"}), 403)
    passed_on = TestClient(reader.app, base_url="http://127.0.0.1:7860", client=("192.0.2.1", 50000))
    assert "192.0.2.1" in refusal(passed_on.request(method, path), 403)
    own = reader.request(method, path, headers={"Origin": "http://127.0.0.1:7860"})
    assert own.status_code != 403 or "came with the app" in own.text


def test_methods_need_no_token(guarded: TestClient):
    methods = {method["name"]: method for method in guarded.get("/v1/methods").json()}
    assert methods["l2d"]["weights"] == {"mld": 10, "cd": 100, "id": 1000}
    assert not methods["vanilla"]["needs_teacher"]


def test_the_document_tells_where_a_token_goes(document: dict[str, Any]):
    (name, scheme), *_ = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for method, path in (("post", "/v1/jobs"), ("get", "/v1/jobs/{job}/events"), ("delete", "/v1/models/{model}")):
        operation = document["paths"][path][method]
        assert operation["security"] == [{name: []}, {}], "with the token, or on a server that has none"
        assert "authorization" not in {parameter["name"] for parameter in operation.get("parameters", [])}
    assert "security" not in document["paths"]["/v1/methods"]["get"]


@pytest.mark.parametrize(
    ("operation", "refusals"),
    [
        ("get /v1/datasets", "401 403"),
        ("get /v1/jobs", "401 403 422 503"),
        ("post /v1/jobs", "400 401 403 408 409 413 415 422 429 503"),
        ("get /v1/jobs/{job}", "401 403 404 422 503"),
        ("get /v1/jobs/{job}/log", "401 403 404 422 503"),
        *((f"post /v1/jobs/{{job}}/{verb}", "401 403 404 409 422 429 503") for verb in ("cancel", "stop", "resume")),
        ("delete /v1/jobs/{job}", "401 403 404 409 422 429 503"),
        ("get /v1/jobs/{job}/events", "401 403 404 422 503"),
        ("get /v1/jobs/{job}/probes/{name}", "401 403 404 422 503"),
        ("delete /v1/models/{model}", "401 403 404 422 429"),
    ],
)
def test_the_document_tells_the_refusals_of_each_route(document: dict[str, Any], operation: str, refusals: str):
    method, path = operation.split()
    responses = document["paths"][path][method]["responses"]
    assert sorted(status for status in responses if status >= "400") == refusals.split()
    for status in refusals.split():
        assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
        assert ("Retry-After" in responses[status].get("headers", {})) == (status == "429")
    assert "came with the app" in document["paths"]["/v1/models/{model}"]["delete"]["responses"]["403"]["description"]
