"""Jobs that were ordered: listed, stopped, deleted with their models, and what is told of one."""

import json
import shutil

import pytest
from fastapi.testclient import TestClient

from app.records import JobFolder
from app.workshop import Workshop
from tests.app.job_routes.conftest import order, refusal


def test_pages_follow_each_other(client: TestClient):
    made = [order(client) for _ in range(5)]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    second = client.get("/v1/jobs", params={"limit": 3, "before": first["next"]}).json()
    assert [job["id"] for job in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None
    for wrong in ({"limit": 0}, {"before": 10**20}):
        refusal(client.get("/v1/jobs", params=wrong), 422)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (f"jobs/{'1' * 40}", 404),
        (f"jobs/{'1' * 41}", 422),
        ("jobs?limit=1", 200),
        ("jobs?limit=200", 200),
        ("jobs?limit=201", 422),
        ("jobs?before=0", 200),
        ("jobs?before=-1", 422),
        (f"jobs?before={2**62}", 200),
        ("jobs/0/log?limit=1", 404),
        ("jobs/0/log?limit=0", 422),
        (f"jobs/0/log?limit={4 * 2**20}", 404),
        (f"jobs/0/log?limit={4 * 2**20 + 1}", 422),
    ],
)
def test_what_is_too_long_or_out_of_range_is_refused_before_anybody_looks_for_it(reader: TestClient, address: str, status: int):
    assert reader.get(f"/v1/{address}").status_code == status


def test_a_model_with_too_long_a_name_is_not_looked_for(reader: TestClient):
    assert [reader.delete(f"/v1/models/{'m' * length}").status_code for length in (200, 201)] == [404, 422]


def test_verbs_follow_the_state(client: TestClient):
    job = order(client)
    assert "is queued" in refusal(client.post(f"/v1/jobs/{job}/stop"), 409)
    assert "is queued" in refusal(client.delete(f"/v1/jobs/{job}"), 409)
    assert client.post(f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    resumed = client.post(f"/v1/jobs/{job}/resume")
    assert (resumed.status_code, resumed.json()["state"]) == (202, "queued")
    assert "No worker is seen" in resumed.json()["reason"]
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    for answer in (client.get(f"/v1/jobs/{job}"), client.get(f"/v1/jobs/{job}/log"), client.get(f"/v1/jobs/{job}/events")):
        assert "There is no job" in refusal(answer, 404)


def test_what_is_asked_of_a_running_job_waits_for_its_worker(client: TestClient, workshop: Workshop):
    job = order(client)
    workshop.queue.claim("w", job)
    for verb in ("stop", "cancel"):
        answer = client.post(f"/v1/jobs/{job}/{verb}")
        assert (answer.status_code, answer.json()["state"], answer.json()["request"]) == (202, "running", verb)


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
    for damage in (b"", b"\xff", b'{"pictures": [', b'{"pictures": 7}', b"[]"):
        (folder / "0001.json").write_bytes(damage)
        assert "'0001' of this job is damaged" in refusal(client.get(f"/v1/jobs/{job}/probes/0001"), 404)
    for epoch in range(2, 301):
        (folder / f"{epoch:04}.json").write_text(json.dumps(maps))
    assert "Unknown probe '0301'. Known are: 0001 to 0300, pictures." in refusal(client.get(f"/v1/jobs/{job}/probes/0301"), 404)


def test_a_probe_with_a_name_that_no_disk_takes_is_refused(client: TestClient, workshop: Workshop):
    job = order(client)
    (workshop.places.jobs / job / "probes").mkdir(parents=True)
    refusal(client.get(f"/v1/jobs/{job}/probes/{'1' * 300}"), 422)
