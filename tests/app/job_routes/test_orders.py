"""Orders: which are accepted, and how the others are refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.catalog import Catalog
from app.orders import choose_first_order
from app.places import Places
from app.workshop import Workshop
from tests.app.job_routes.conftest import ORDER, refusal, serve


def test_an_order_is_accepted_with_its_place(client: TestClient):
    answer = client.post("/v1/jobs", json=ORDER)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert client.get(answer.headers["location"]).json() == job
    below = TestClient(client.app, base_url="http://127.0.0.1:7860", client=("127.0.0.1", 50000), root_path="/l2d")
    assert below.post("/l2d/v1/jobs", json=ORDER).headers["location"].startswith("/l2d/v1/jobs/")
    assert "There is nothing at /v1/nope." in refusal(below.get("/l2d/v1/nope"), 404)
    assert (job["state"], job["progress"], job["models"], job["title"]) == ("queued", 0, [], "resnet18, vanilla, on shapes")
    assert job["order"]["epochs"] == 3
    assert job["commands"][0].startswith('l2d train --backbone resnet18 --data shapes --out "${L2D_STATE:-runs}/by-hand/')


def test_the_first_order_of_the_page_is_accepted(client: TestClient):
    answer = client.post("/v1/jobs", json=choose_first_order([]).model_dump())
    assert answer.status_code == 202, answer.text
    teacher, student = answer.json()["commands"]
    assert teacher.startswith("l2d train --backbone")
    out = re.search(r'--out ("\$.+?/teacher") ', teacher)
    assert out
    assert f"--teacher {out[1]} " in student


def test_the_example_of_the_document_is_accepted_and_its_choices_are_told(client: TestClient):
    schema = client.get("/openapi.json").json()["components"]["schemas"]["Order"]
    (example,) = schema["examples"]
    assert client.post("/v1/jobs", json=example).status_code == 202
    choices = {name: schema["properties"][name]["enum"] for name in ("method", "student", "teacher_backbone")}
    assert choices["method"] == [method["name"] for method in client.get("/v1/methods").json()]
    assert choices["teacher_backbone"] == [*choices["student"], None]
    assert "mobilenetv2_100" in choices["student"]


def test_a_title_of_blanks_is_none(client: TestClient):
    titles = [client.post("/v1/jobs", json=ORDER | {"title": title}).json()["title"] for title in (" \n ", " my \t student ")]
    assert titles == ["resnet18, vanilla, on shapes", "my student"]


def test_a_body_that_is_not_said_to_be_json_is_told_so(client: TestClient):
    for headers in ({"Content-Type": "application/x-www-form-urlencoded"}, {}):
        answer = client.post("/v1/jobs", content=json.dumps(ORDER), headers=headers)
        assert "Expected a body with the header 'Content-Type: application/json'; got" in refusal(answer, 415)
    assert "415" in client.get("/openapi.json").json()["paths"]["/v1/jobs"]["post"]["responses"]


def test_broken_json_is_told_as_such(client: TestClient):
    sentence = refusal(client.post("/v1/jobs", content="{bad", headers={"Content-Type": "application/json"}), 422)
    assert sentence == "body: Invalid JSON: Expecting property name enclosed in double quotes at character 1."


@pytest.mark.parametrize("body", [b'{"title": "\xff"}', b"[" * 100_000, b'{"epochs": ' + b"1" * 5000 + b"}"])
def test_a_body_that_cannot_be_read_is_told_why(client: TestClient, body: bytes):
    sentence = refusal(client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}), 400)
    assert sentence.startswith("Expected JSON as text in UTF-8; this is no such text, is nested too deeply, or has a number of too many")


def test_an_empty_key_is_refused(client: TestClient):
    refusal(client.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": ""}), 422)


def test_a_key_is_kept_so_it_may_not_be_endless(client: TestClient):
    sent = [client.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": "k" * length}) for length in (1, 200, 201)]
    assert [answer.status_code for answer in sent] == [202, 202, 422]


def test_the_same_key_orders_once(client: TestClient):
    first, second = (client.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1
    other = client.post("/v1/jobs", json=ORDER | {"epochs": 4}, headers={"Idempotency-Key": "k"})
    assert first.json()["id"] in refusal(other, 409)


@pytest.mark.parametrize("name", ["../checkpoints/the-teacher", "..", "/etc/passwd", "the-teacher/../the-teacher"])
@pytest.mark.parametrize("field", ["data", "student", "teacher", "start_from", "teacher_backbone", "teacher_start_from"])
def test_no_name_in_an_order_leads_out_of_its_folder(reader: TestClient, field: str, name: str):
    order = ORDER | {"method": "l2d", "teacher": None, "teacher_backbone": None if field == "teacher" else "resnet34", field: name}
    assert re.search(r"Unknown|is no model with", refusal(reader.post("/v1/jobs", json=order), 422))
    assert reader.get("/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs"),
        ({"lr": 7}, "lr"),
        ({"image_size": 31}, "image_size"),
        ({"student": "os.system"}, "Unknown backbone 'os.system'; the known ones are resnet18"),
        ({"method": "magic"}, "Unknown method 'magic'"),
        ({"method": "l2d"}, "needs a teacher"),
        ({"method": "l2d", "teacher": "the-teacher", "teacher_backbone": "resnet34"}, "either teacher or teacher_backbone"),
        ({"teacher_backbone": "resnet34"}, "labels alone"),
        ({"method": "l2d", "teacher": "nobody"}, "Unknown teacher 'nobody'. Known are: "),
        ({"method": "l2d", "teacher": "the-teacher"}, "5 labels"),
        ({"start_from": "the-teacher"}, "no model with the backbone resnet18"),
        ({"teacher_start_from": "the-teacher"}, "teacher_backbone"),
        ({"method": "l2d", "teacher_backbone": "resnet34", "weights": {"bce": 1}}, "no loss 'bce'"),
        ({"data": "../../etc"}, "Unknown data set '../../etc'. Known are: shapes"),
        ({"out": "/tmp/x"}, "out"),
        ({"processes": 3}, "batch_size that 3 divides"),
        ({"freeze_stages": 2}, "start_from or pretrained"),
        ({"output_stride": 7}, "8, 16 or 32"),
        ({"output_stride": 16, "student": "swin_tiny_patch4_window7_224"}, "32 alone"),
        ({"image_size": 226, "student": "swin_tiny_patch4_window7_224"}, "image_size that 4 divides"),
        ({"title": "bell\x07"}, "leave control characters out; got"),
        ({"weights": {"mld": float("1e9")}, "method": "mld", "teacher_backbone": "resnet34"}, "between 0 and 1000000"),
    ],
)
def test_a_wrong_order_is_refused_in_words(reader: TestClient, changes: dict[str, Any], sentence: str):
    told = refusal(reader.post("/v1/jobs", json=ORDER | changes), 422)
    assert sentence in told
    assert "Value error" not in told
    assert reader.get("/v1/jobs").json()["jobs"] == []


def test_a_folder_that_cannot_be_written_refuses_jobs_alone(places: Places, tmp_path: Path):
    (tmp_path / "blocked").write_text("")
    with serve(Workshop(places._replace(state=tmp_path / "blocked" / "state"), Catalog(places.checkpoints))) as client:
        assert "L2D_STATE" in refusal(client.post("/v1/jobs", json=ORDER), 503)
        assert client.get("/v1/methods").status_code == 200
        assert client.get("/healthz").status_code == 200
