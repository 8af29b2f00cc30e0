"""Data sets as jobs name them: looked through before an order is accepted, again when they changed, and whatever lies in them."""

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.places import Places
from app.workshop import Workshop
from l2d.data.check import check_data
from tests.app.job_routes.conftest import ORDER, order, refusal

WriteTable = Callable[..., None]


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


def test_accents_may_be_coded_as_on_a_mac(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable):
    composed, apart = "V\u00f6gel", "Vo\u0308gel"
    write_table(places.data / apart)
    assert workshop.datasets.names() == ["shapes", composed]
    for name in (composed, apart):
        command = client.get(f"/v1/jobs/{order(client, data=name)}").json()["commands"][0]
        assert f'--data "csv:${{L2D_DATA:-data}}/{apart}/labels.csv"' in command


def test_a_reader_that_fails_is_a_fault_of_the_data_set(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "odd")
    monkeypatch.setattr("app.datasets.check_data", lambda *_, **__: [][0])
    assert "IndexError: list index out of range" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "odd"}), 422)


def test_a_data_set_that_changed_is_looked_through_again(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    order(client, data="mine")
    (places.data / "mine" / ".DS_Store").write_bytes(b"what a Mac writes where it shows a folder")
    assert workshop.datasets.describe("mine").train == 3
    (places.data / "mine" / "4.png").write_bytes(b"not a picture")
    assert "4.png" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "mine"}), 422)
    Image.new("RGB", (40, 40)).save(places.data / "mine" / "4.png")
    order(client, data="mine")


def test_what_changes_while_it_is_looked_through_is_looked_through_again(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "mine", broken="2.png")

    def look_while_somebody_copies(spec: str, split: str, **_: object) -> dict[str, Any]:
        found = check_data(spec, split)
        Image.new("RGB", (40, 40)).save(places.data / "mine" / "2.png")
        return found

    monkeypatch.setattr("app.datasets.check_data", look_while_somebody_copies)
    assert "2.png" in refusal(client.post("/v1/jobs", json=ORDER | {"data": "mine"}), 422)
    order(client, data="mine")


def test_what_another_revision_could_not_read_is_looked_through_again(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "mine")
    with monkeypatch.context() as older:
        older.setattr("app.datasets._hash_readers", lambda: b"older")
        older.setattr("app.datasets.check_data", lambda *_, **__: [][0])
        refusal(client.post("/v1/jobs", json=ORDER | {"data": "mine"}), 422)
    order(client, data="mine")


def test_orders_that_wait_for_a_data_set_leave_the_server_to_others(
    client: TestClient, places: Places, monkeypatch: pytest.MonkeyPatch, write_table: WriteTable
):
    write_table(places.data / "known")
    order(client, data="known")
    write_table(places.data / "large")
    begun, go_on, looked = threading.Event(), threading.Event(), list[str]()

    def look_slowly(spec: str, split: str, **_: object) -> dict[str, Any]:
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


@pytest.mark.skipif(sys.platform == "darwin", reason="Macs have no such names")
def test_a_file_name_that_is_no_text_spoils_no_data_set(client: TestClient, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    (places.data / "mine" / os.fsdecode(b"caf\xe9.txt")).write_text("")
    order(client, data="mine")
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] == 3


@pytest.mark.parametrize(
    ("label", "file", "sentence"),
    [("sky\ud83d", "1.png", r"The label 'sky\ud83d' holds half of a character"), ("sky", "1\ud83d.png", r"1\ud83d.png")],
    ids=["label", "file"],
)
def test_half_a_character_is_a_fault_of_its_data_set_and_spoils_no_list(
    client: TestClient, places: Places, label: str, file: str, sentence: str
):
    picture = {"id": 1, "file_name": file, "width": 9, "height": 9}
    mark = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}
    content = {"images": [picture], "annotations": [mark], "categories": [{"id": 1, "name": label}]}
    for split in ("train", "val"):
        (places.data / "half" / f"{split}2014").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(places.data / "half" / f"{split}2014" / "1.png")
        path = places.data / "half" / "annotations" / f"instances_{split}2014.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    assert sentence in refusal(client.post("/v1/jobs", json=ORDER | {"data": "half"}), 422)
    assert sentence in client.get("/v1/datasets").json()[1]["problem"]


def test_findings_that_cannot_be_kept_are_found_again(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable):
    write_table(places.data / "mine")
    workshop.datasets.memory.parent.mkdir(parents=True, exist_ok=True)
    workshop.datasets.memory.write_text("in the way")
    assert order(client, data="mine") != order(client, data="mine")


@pytest.mark.parametrize("kept", ["", "{}", "[]", '{"stamp": "0", "facts": {}}'])
def test_damaged_findings_are_found_again(client: TestClient, workshop: Workshop, places: Places, write_table: WriteTable, kept: str):
    write_table(places.data / "mine")
    order(client, data="mine")
    (workshop.datasets.memory / "mine.json").write_text(kept)
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] is None
    order(client, data="mine")
    assert {found["name"]: found["train"] for found in client.get("/v1/datasets").json()}["mine"] == 3
