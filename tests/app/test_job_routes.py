"""Jobs over HTTP: what is accepted, what is refused and how, and what a client that follows a job is told."""

import asyncio
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from app.access import Access
from app.api import add_api, refuse_rest
from app.catalog import Catalog
from app.job_routes import add_jobs
from app.jobs import ENDED, Progress
from app.orders import choose_first_order
from app.places import Places
from app.processes import LocalMachine
from app.records import JobFolder
from app.worker import clear
from app.workshop import Workshop
from l2d.data.check import check_data

WriteTable = Callable[..., None]

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
    return TestClient(app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


@pytest.fixture
def client(workshop: Workshop) -> Iterator[TestClient]:
    with serve(workshop) as client:
        yield client


@pytest.fixture(scope="module")
def untouched(made_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Shared by tests of what is refused, or only read: none of them changes anything."""
    folder = tmp_path_factory.mktemp("untouched")
    places = Places(folder / "state", folder / "data", Path(shutil.copytree(made_checkpoints, folder / "checkpoints")))
    return Workshop(places, Catalog(places.checkpoints, made=places.models))


@pytest.fixture(scope="module")
def reader(untouched: Workshop) -> Iterator[TestClient]:
    """As `client`, of the shared places."""
    with serve(untouched) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(untouched: Workshop) -> Iterator[TestClient]:
    """As `reader`, of a server that wants a token."""
    with serve(untouched, token="secret") as client:
        yield client


@pytest.fixture(scope="module")
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


def test_an_order_is_accepted_with_its_place(client: TestClient):
    answer = client.post("/v1/jobs", json=ORDER)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert client.get(answer.headers["location"]).json() == job
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


@pytest.mark.parametrize(("changes", "left"), [({"processes": 4, "batch_size": 64}, 2), ({"holdout": 0.5}, 1)])
def test_a_job_with_too_few_pictures_to_train_on_is_refused(
    client: TestClient, places: Places, changes: dict[str, Any], left: int, write_table: WriteTable
):
    write_table(places.data / "small")
    sentence = refusal(client.post("/v1/jobs", json=ORDER | {"data": "small"} | changes), 422)
    assert f"Of the 3 training pictures of 'small' {left} {'is' if left == 1 else 'are'} left" in sentence


def test_data_sets_are_looked_through_before_a_job_is_accepted(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "whole")
    write_table(places.data / "torn", broken="2.png")
    for name in ("strange", "shapes"):
        (places.data / name).mkdir()
    (places.data / "notes").write_text("no folder")
    listed = client.get("/v1/datasets").json()
    known = {found["name"]: found for found in listed}
    assert [found["name"] for found in listed] == ["shapes", "strange", "torn", "whole"]
    assert known["shapes"]["labels"]
    assert known["shapes"]["train"] > known["shapes"]["test"] > 0
    assert "none of the known ways" in known["strange"]["problem"]
    assert known["whole"]["labels"] == [], "not looked through yet"
    order(client, data="whole")
    found = {found["name"]: found for found in client.get("/v1/datasets").json()}["whole"]
    assert (found["kind"], found["labels"], found["train"], found["test"]) == ("csv", ["dark", "light"], 3, 3)
    sentence = refusal(client.post("/v1/jobs", json=ORDER | {"data": "torn"}), 422)
    assert "torn/2.png" in sentence
    assert str(places.data) not in sentence
    assert "none of the known ways" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "strange"}), 422)


def test_names_of_any_script_and_with_blanks(client: TestClient, places: Places, write_table: WriteTable):
    for name in ("my photos", "Vögel-2024", ".hidden", "-odd"):
        write_table(places.data / name)
    assert [found["name"] for found in client.get("/v1/datasets").json()] == ["shapes", "Vögel-2024", "my photos"]
    for name in ("my photos", "Vögel-2024"):
        command = client.get(f"/v1/jobs/{order(client, data=name)}").json()["commands"][0]
        assert f'--data "csv:${{L2D_DATA:-data}}/{name}/labels.csv"' in command


def test_a_reader_that_fails_is_a_fault_of_the_data_set(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "odd")
    monkeypatch.setattr("app.datasets.check_data", lambda *_: [][0])
    assert "IndexError: list index out of range" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "odd"}), 422)


def test_a_data_set_that_changed_is_looked_through_again(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    order(client, data="mine")
    (places.data / "mine" / "4.png").write_bytes(b"not a picture")
    assert "4.png" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "mine"}), 422)
    Image.new("RGB", (40, 40)).save(places.data / "mine" / "4.png")
    order(client, data="mine")


def test_orders_that_wait_for_a_data_set_leave_the_server_to_others(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "known")
    order(client, data="known")
    write_table(places.data / "large")
    begun, go_on, looked = threading.Event(), threading.Event(), list[str]()

    def look_slowly(spec: str, split: str) -> dict[str, Any]:
        looked.append(split)
        begun.set()
        go_on.wait(60)
        return check_data(spec, split)

    monkeypatch.setattr("app.datasets.check_data", look_slowly)
    with ThreadPoolExecutor(61) as others:
        try:
            waiting = [others.submit(client.post, "/v1/jobs", json=ORDER | {"data": "large"}) for _ in range(60)]
            assert begun.wait(10)
            assert others.submit(client.get, "/v1/methods").result(timeout=10).status_code == 200
            for name in ("shapes", "known"):
                assert others.submit(client.post, "/v1/jobs", json=ORDER | {"data": name}).result(timeout=10).status_code == 202
        finally:
            go_on.set()
    answers = [answer.result() for answer in waiting]
    refused = [answer for answer in answers if answer.status_code != 202]
    assert 0 < len(answers) - len(refused) < 40
    assert "Order 'large' again in 10 seconds." in refusal(refused[0], 429)
    assert refused[0].headers["retry-after"] == "10"
    assert looked == ["train", "test"], "once for all who waited"
    for name in ("one", "two", "three", "four", "five"):
        write_table(places.data / name)
        order(client, data=name)


def test_a_link_that_leads_nowhere_spoils_no_list(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    (places.data / "mine" / "old.png").symlink_to(places.data / "gone.png")
    order(client, data="mine")
    assert [found["name"] for found in client.get("/v1/datasets").json()] == ["shapes", "mine"]


def test_links_to_folders_above_are_not_followed_round_and_round(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    write_table(places.data / ".elsewhere")
    for name, leads in (("a", "."), ("b", "."), ("c", "../.elsewhere"), ("d", "../mine/c")):
        (places.data / "mine" / name).symlink_to(leads)

    def is_known() -> bool:
        return {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] == 3

    order(client, data="mine")
    assert is_known()
    (places.data / ".elsewhere" / "1.png").write_bytes(b"changed")
    assert not is_known(), "what is behind a link belongs to it"
    order(client, data="mine")
    (places.data / "mine" / "b").unlink()
    (places.data / "mine" / "b").symlink_to("../.elsewhere")
    assert not is_known(), "a link leads elsewhere now"


def test_a_file_name_that_is_no_text_spoils_no_data_set(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    (places.data / "mine" / os.fsdecode(b"caf\xe9.txt")).write_text("")
    order(client, data="mine")
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] == 3


def test_findings_that_cannot_be_kept_are_found_again(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    workshop.datasets.memory.parent.mkdir(parents=True, exist_ok=True)
    workshop.datasets.memory.write_text("in the way")
    assert order(client, data="mine") != order(client, data="mine")


@pytest.mark.parametrize("kept", ["", "{}", '{"stamp": "0", "facts": {}}'])
def test_damaged_findings_are_found_again(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable, kept: str):
    write_table(places.data / "mine")
    order(client, data="mine")
    (workshop.datasets.memory / "mine.json").write_text(kept)
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] is None
    order(client, data="mine")
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] == 3


def test_pages_follow_each_other(client: TestClient):
    made = [order(client) for _ in range(5)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    second = client.get("/v1/jobs", params={"limit": 3, "before": first["next"]}).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None
    for wrong in ({"limit": 0}, {"before": 10**20}):
        refusal(client.get("/v1/jobs", params=wrong), 422)


def test_verbs_follow_the_state(client: TestClient):
    job = order(client)
    assert "is queued" in refusal(client.post(f"/v1/jobs/{job}/stop"), 409)
    assert "is queued" in refusal(client.delete(f"/v1/jobs/{job}"), 409)
    assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{job}/resume").json()["state"] == "queued"
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    for answer in (client.get(f"/v1/jobs/{job}"), client.get(f"/v1/jobs/{job}/log"), client.get(f"/v1/jobs/{job}/events")):
        assert "There is no job" in refusal(answer, 404)


def finish(workshop: Workshop, job: str, model: str) -> None:
    """As a worker does it, with a model that is there already."""
    workshop.queue.claim("w", job)
    JobFolder(workshop.places.jobs / job).prepare()
    workshop.places.models.mkdir(parents=True)
    source = workshop.places.checkpoints / "student-vanilla"
    card = json.loads((source / "card.json").read_text())
    source.rename(workshop.places.models / model)
    (workshop.places.models / model / "card.json").write_text(json.dumps(card | {"lineage": {"job": job}}))
    workshop.queue.finish(job, "w", "succeeded", "Done.", (model,))


def test_deleting_a_job_takes_its_models_along(client: TestClient, workshop: Workshop):
    job = order(client)
    finish(workshop, job, f"shapes-x-{job}")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert list(workshop.places.models.iterdir()) == []
    assert list(workshop.places.jobs.iterdir()) == []


def test_shipped_models_cannot_be_deleted(client: TestClient, workshop: Workshop):
    assert "came with the app" in refusal(client.delete("/v1/models/the-teacher"), 403)
    assert "the-teacher" in refusal(client.delete("/v1/models/nobody"), 404)
    assert workshop.catalog.find("the-teacher")


def test_a_model_is_deleted_only_where_jobs_put_theirs_and_only_if_it_is_of_one(client: TestClient, workshop: Workshop):
    checkpoints, models = workshop.places.checkpoints, workshop.places.models
    card = checkpoints / "the-teacher" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"lineage": {"job": "1f"}}))
    models.mkdir(parents=True)
    (checkpoints / "alien").rename(models / "by-hand")
    shutil.copytree(checkpoints / "the-teacher", models / "mine-1f")
    for name in ("the-teacher", "by-hand"):
        refusal(client.delete(f"/v1/models/{name}"), 403)
    assert client.delete("/v1/models/mine-1f").status_code == 204
    assert [path.name for path in models.iterdir()] == ["by-hand"]
    assert card.exists()


def test_the_log_is_plain_text_and_limited(client: TestClient, workshop: Workshop):
    job = order(client)
    assert client.get(f"/v1/jobs/{job}/log").text == ""
    folder = JobFolder(workshop.places.jobs / job)
    folder.prepare()
    folder.log.write_text("first line\n<script>alert(1)</script>\n")
    answer = client.get(f"/v1/jobs/{job}/log")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("first line\n<script>")
    assert client.get(f"/v1/jobs/{job}/log", params={"limit": 30}).text == "<script>alert(1)</script>\n"


def read_events(answer: httpx.Response) -> list[tuple[str, str, dict[str, Any]]]:
    """(kind, id, data) of every event of a stream that has ended."""
    events = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return events


def test_the_document_tells_on_which_states_a_stream_is_closed(document: dict[str, Any]):
    told = document["paths"]["/v1/jobs/{job}/events"]["get"]["description"]
    assert all(f"`{state}`" in told for state in ENDED)


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


def test_a_stream_of_a_job_that_is_deleted_just_ends(client: TestClient, workshop: Workshop, caught_up: threading.Event):
    job = order(client)

    def delete() -> None:
        assert caught_up.wait(60)
        workshop.queue.cancel(job)
        workshop.delete(job)

    thread = threading.Thread(target=delete)
    thread.start()
    events = read_events(client.get(f"/v1/jobs/{job}/events"))
    thread.join()
    assert [kind for kind, _, _ in events][:1] == ["state"]


def test_probes_are_told_and_one_that_is_not_there_names_those_that_are(client: TestClient, workshop: Workshop):
    job = order(client)
    assert "Unknown probe '0001'. Known are: none." in refusal(client.get(f"/v1/jobs/{job}/probes/0001"), 404)
    folder = JobFolder(workshop.places.jobs / job).probes
    folder.mkdir(parents=True)
    shown = {"width": 40, "height": 30, "labels": ["circle"]}
    maps = {"pictures": [[{"label": "circle", "score": 0.5, "rows": [[0.0, 1.5]]}]]}
    (folder / "pictures.json").write_text(json.dumps({"pictures": [shown | {"file": "0.jpg"}]}))
    (folder / "0001.json").write_text(json.dumps(maps))
    assert client.get(f"/v1/jobs/{job}/probes/pictures").json() == {"pictures": [shown]}, "without a file that nobody can ask for"
    assert client.get(f"/v1/jobs/{job}/probes/0001").json() == maps
    assert "Known are: 0001, pictures." in refusal(client.get(f"/v1/jobs/{job}/probes/0002"), 404)
    for epoch in range(2, 301):
        (folder / f"{epoch:04}.json").write_text(json.dumps(maps))
    assert "Unknown probe '0301'. Known are: 0001 to 0300, pictures." in refusal(client.get(f"/v1/jobs/{job}/probes/0301"), 404)


def test_a_probe_with_a_name_that_no_disk_takes_is_refused(client: TestClient, workshop: Workshop):
    job = order(client)
    (workshop.places.jobs / job / "probes").mkdir(parents=True)
    refusal(client.get(f"/v1/jobs/{job}/probes/{'1' * 300}"), 422)


def test_events_tell_everything_since_the_start_and_then_what_follows(client: TestClient, workshop: Workshop, caught_up: threading.Event):
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
    workshop.queue.claim("w", job)
    folder.append({"event": "attempt", "attempt": 2})
    workshop.queue.finish(job, "w", "succeeded", "Done.")
    assert [kind for kind, _, _ in read_events(ask(last))] == ["attempt", "state"]


def test_head_of_a_stream_does_not_wait_for_its_job(client: TestClient):
    job = order(client)
    assert client.head(f"/v1/jobs/{job}").status_code == 200
    probed = client.head(f"/v1/jobs/{job}/events")
    assert (probed.status_code, probed.content) == (200, b"")
    assert client.head("/v1/jobs/0/events").status_code == 404


def test_head_needs_the_token_too(workshop: Workshop):
    with serve(workshop, token="secret") as client:
        assert client.head("/v1/jobs").status_code == 401


def test_a_stream_ends_when_the_server_stops(client: TestClient):
    job = order(client)
    client.app.state.leaving.set()
    assert [kind for kind, _, _ in read_events(client.get(f"/v1/jobs/{job}/events"))] == ["state"]


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


def test_methods_need_no_token(guarded: TestClient):
    methods = {method["name"]: method for method in guarded.get("/v1/methods").json()}
    assert methods["l2d"]["weights"] == {"mld": 10, "cd": 100, "id": 1000}
    assert not methods["vanilla"]["needs_teacher"]


@pytest.mark.parametrize(
    ("operation", "refusals"),
    [
        ("get /v1/datasets", "401 403"),
        ("get /v1/jobs", "401 403 422 503"),
        ("post /v1/jobs", "400 401 403 408 409 413 415 422 429 503"),
        ("get /v1/jobs/{job}", "401 403 404 422 503"),
        ("get /v1/jobs/{job}/log", "401 403 404 422 503"),
        ("post /v1/jobs/{job}/stop", "401 403 404 409 422 429 503"),
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


def test_the_document_tells_where_a_token_goes(document: dict[str, Any]):
    (name, scheme), *_ = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for method, path in (("post", "/v1/jobs"), ("get", "/v1/jobs/{job}/events"), ("delete", "/v1/models/{model}")):
        operation = document["paths"][path][method]
        assert operation["security"] == [{name: []}, {}], "with the token, or on a server that has none"
        assert "authorization" not in {parameter["name"] for parameter in operation.get("parameters", [])}
    assert "security" not in document["paths"]["/v1/methods"]["get"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_other_sites_stay_out(reader: TestClient, method: str, path: str):
    assert "L2D_TOKEN" in refusal(reader.request(method, path, headers={"Host": "evil.example"}), 403)
    assert "evil.example" in refusal(reader.request(method, path, headers={"Origin": "http://evil.example"}), 403)
    own = reader.request(method, path, headers={"Origin": "http://127.0.0.1:7860"})
    assert own.status_code != 403 or "came with the app" in own.text


def test_a_folder_that_cannot_be_written_refuses_jobs_alone(places: Places, tmp_path: Path):
    (tmp_path / "blocked").write_text("")
    with serve(Workshop(places._replace(state=tmp_path / "blocked" / "state"), Catalog(places.checkpoints))) as client:
        assert "L2D_STATE" in refusal(client.post("/v1/jobs", json=ORDER), 503)
        assert client.get("/v1/methods").status_code == 200
        assert client.get("/healthz").status_code == 200


def test_models_that_nobody_was_told_of_are_cleared_away(workshop: Workshop, client: TestClient):
    job = order(client)
    workshop.queue.claim("w", job)
    (workshop.places.models / f"shapes-x-{job}").mkdir(parents=True)
    (given_up,) = workshop.queue.give_up_seat("w")
    clear(given_up, workshop.places, LocalMachine(workshop.places, "cpu"))
    assert list(workshop.places.models.iterdir()) == []
