"""What programs see: routes, their answers, and one shape of error."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.compare import compare
from app.parameters import FigureLook
from app.schemas import MapKind
from app.server import create_api
from app.settings import Settings
from l2d.cam import OWN_KINDS
from l2d.figure import COLORMAPS
from l2d.layers import KINDS, SCALES
from tests.app.conftest import post, refusal, to_json


def test_models_are_listed_and_shown(settings: Settings, checkpoints: Path):
    (checkpoints / "broken").mkdir()
    with TestClient(create_api(settings)) as client:
        listed = client.get("/v1/models").json()
        shown = client.get("/v1/models/alien").json()
        assert "Known are: the-teacher" in refusal(client.get("/v1/models/nobody"), 404, "unknown_model")
    assert [model["name"] for model in listed["models"]] == ["the-teacher", "student-vanilla", "student-l2d", "alien"]
    assert [model["default"] for model in listed["models"]] == [True, True, True, False]
    assert listed["refused"] == [{"name": "broken", "reason": "broken holds no card.json."}]
    assert shown["labels"] == ["cat", "zebra"]
    assert shown["num_labels"] == 2
    assert shown["sha256"] == json.loads((checkpoints / "alien" / "card.json").read_text())["sha256"]


def test_compare_gives_what_the_page_gets(client: TestClient, upload: bytes):
    # Of the client's own engine, which the page would ask too: another one's numbers may differ in their last digit.
    engine = client.app.state.engine
    answer = post(client, upload, labels="cat, sky", models="the-teacher,student-l2d", threshold="0.3").json()
    expected = compare(engine, upload, ["the-teacher", "student-l2d"], ["cat", "sky"], 0.3).model_dump(mode="json")
    for model in (*answer["models"], *expected["models"]):
        assert set(model["timings_ms"]) == {"decode", "network", "maps", "total"}
        model.pop("timings_ms")
        model.pop("cached")
    assert answer == expected
    assert np.array(answer["models"][0]["maps"]["sky"]).shape == (3, 3)


def test_attention_is_a_second_kind_of_map(client: TestClient, upload: bytes):
    answer = post(client, upload, labels="cat,sky", models="student-l2d", kind="attention").json()
    assert answer["kind"] == "attention"
    for rows in answer["models"][0]["maps"].values():
        assert np.array(rows).sum() == pytest.approx(1, abs=1e-5)
    path = "/v1/models/student-l2d:explain"
    (explained,) = client.post(path, json=to_json(upload, labels=["cat"], kind="attention")).json()["explanations"]
    assert (explained["kind"], explained["maps"]["cat"]) == ("attention", answer["models"][0]["maps"]["cat"])
    # The evidence of the same picture and label is another map, and the picture is not looked at again.
    evidence = post(client, upload, labels="cat", models="student-l2d").json()["models"][0]
    assert evidence["cached"]
    assert evidence["maps"]["cat"] != explained["maps"]["cat"]


def test_every_choice_is_one_of_the_core():
    assert get_args(MapKind) == OWN_KINDS == tuple(KINDS)
    fields = FigureLook.model_fields
    assert get_args(fields["scale"].annotation) == tuple(SCALES)
    assert get_args(fields["colormap"].annotation) == COLORMAPS


def test_predict_takes_a_form_and_json(client: TestClient, upload: bytes):
    path = "/v1/models/student-l2d:predict"
    form = post(client, upload, path).json()["predictions"]
    assert len(form) == 1
    assert len(form[0]) == 5
    sent = client.post(path, json=to_json(upload, upload, top_k=2)).json()["predictions"]
    assert sent == [form[0][:2]] * 2
    least = form[0][2]["score"]
    assert post(client, upload, path, threshold=str(least)).json()["predictions"] == [form[0][:3]]
    assert client.post(path, json={"instances": to_json(upload)["instances"]}).json()["predictions"] == form


def test_explain_takes_a_form_and_json(client: TestClient, upload: bytes):
    path = "/v1/models/alien:explain"
    form = post(client, upload, path, labels="zebra").json()["explanations"][0]
    sent = client.post(path, json=to_json(upload, labels=["zebra"])).json()["explanations"][0]
    assert sent["cached"]
    assert sent["maps"] == form["maps"]
    assert sent["image"] == form["image"]
    assert sent["labels"] == ["zebra"]
    assert len(sent["maps"]["zebra"]) == sent["map_size"][0]
    assert post(client, upload, path, threshold="0").json()["explanations"][0]["labels"] == [p["label"] for p in form["predictions"]]


def test_unknown_names_are_told_what_is_known(client: TestClient, upload: bytes):
    message = refusal(post(client, upload, models="the-teacher,student-l3d"), 404, "unknown_model")
    assert "Unknown model 'student-l3d'. Did you mean 'student-l2d'? Known are: the-teacher, student-vanilla" in message
    assert "Known are: cat, dog, car, cup, sky." in refusal(post(client, upload, labels="cat,horse"), 422, "unknown_label")
    assert "'nobody'" in refusal(post(client, upload, "/v1/models/nobody:predict"), 404, "unknown_model")
    assert "'horse'" in refusal(client.post("/v1/models/alien:explain", json=to_json(upload, labels=["horse"])), 422, "unknown_label")


def test_unknown_routes_get_the_same_shape(client: TestClient):
    for path in ("/v1", "/v1/", "/v1/nothing", "/v1/models/a/b", "/v1/../v1/x"):
        message = refusal(client.get(path), 404, "unknown_route")
        assert f"There is nothing at {path.replace('/v1/../v1/', '/v1/')}" in message
        assert "/v1/compare" in message


def test_other_methods_are_refused_with_those_that_work(client: TestClient):
    response = client.get("/v1/compare")
    assert "answers to POST; got GET" in refusal(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert refusal(client.post("/v1/models/alien"), 405, "method_not_allowed")
    assert refusal(client.request("QUERY", "/v1/models"), 405, "method_not_allowed")
    assert client.post("/docs").headers["allow"] == "GET"


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_what_only_takes_pictures_refuses_all_else_with_the_method(client: TestClient, verb: str):
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        response = client.request(method, f"/v1/models/alien:{verb}")
        assert f"/v1/models/alien:{verb} answers to POST; got {method}" in refusal(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    assert client.head(f"/v1/models/alien:{verb}").status_code == 405


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_an_unknown_verb_of_a_model_is_told_the_known_ones(client: TestClient, method: str):
    sentence = refusal(client.request(method, "/v1/models/alien:predct"), 404, "unknown_route")
    assert sentence == "Unknown verb of a model ':predct'. Did you mean ':predict'? Known are: :predict, :explain."


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/alien", "/v1/models/nobody", "/v1/methods"])
def test_head_is_answered_as_get_without_a_body(client: TestClient, path: str):
    read, probed = client.get(path), client.head(path)
    assert (probed.status_code, probed.content) == (read.status_code, b"")
    assert probed.headers["content-type"] == read.headers["content-type"]
    assert client.post(path).headers["allow"].startswith(("GET, HEAD", "DELETE, GET, HEAD"))
