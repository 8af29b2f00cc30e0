"""What programs see: numbers, files, and one shape of error."""

import asyncio
import base64
import io
import json
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image
from starlette.types import Message

from app.compare import compare
from app.engine import Engine
from app.parameters import EXAMPLE_MODELS, FigureLook
from app.schemas import MapKind
from app.server import create_api
from app.settings import Settings
from l2d.cam import OWN_KINDS
from l2d.figure import COLORMAPS, draw_figure
from l2d.layers import KINDS, SCALES, format_number
from l2d.runtime import OpenVino
from tests.app.conftest import ROOT, configure


def post(client: TestClient, data: bytes, path: str = "/v1/compare", **fields: object) -> Response:
    return client.post(path, files={"image": ("photo.png", data)}, data=fields)


def to_json(*pictures: bytes, **parameters: object) -> dict[str, object]:
    return {"instances": [{"image": {"b64": base64.b64encode(data).decode()}} for data in pictures], "parameters": parameters}


def refusal(response: Response, status: int, code: str) -> str:
    """The sentence of an error, after a look at its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"status", "code", "message", "details"}
    assert (error["status"], error["code"]) == (status, code)
    assert error["message"].endswith((".", "?"))
    return str(error["message"])


def claim_size(png: bytes, width: int, height: int) -> bytes:
    """The same PNG with another size in its header."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_health_and_readiness(client: TestClient):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_not_ready_before_the_models_are_loaded(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    loaded = threading.Event()
    monkeypatch.setattr(Engine, "warm_up", lambda _: loaded.wait(20))
    with TestClient(create_api(settings)) as client:
        loading = client.get("/readyz")
        assert "Loading the models" in refusal(loading, 503, "unavailable")
        assert int(loading.headers["retry-after"]) > 0
        responses = client.get("/openapi.json").json()["paths"]["/readyz"]["get"]["responses"]
        assert "Retry-After" in responses["503"]["headers"]
        assert client.get("/healthz").status_code == 200
        loaded.set()


def test_while_the_server_starts_an_answer_waits_for_its_model(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    loaded = threading.Event()
    monkeypatch.setattr(Engine, "warm_up", lambda _: loaded.wait(60))
    with TestClient(create_api(settings)) as client:
        assert client.get("/readyz").status_code == 503
        assert post(client, upload, models="alien").status_code == 200
        responses = client.get("/openapi.json").json()["paths"]["/v1/compare"]["post"]["responses"]
        loaded.set()
    assert "starting" not in responses["503"]["description"]
    assert "starts" in responses["504"]["description"]


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


def test_names_may_be_repeated_instead_of_separated(client: TestClient, upload: bytes):
    answer = post(client, upload, labels=["cat", "dog,sky"], models=["alien", "student-l2d"]).json()
    assert answer["labels"] == ["cat", "dog", "sky"]
    assert [model["name"] for model in answer["models"]] == ["alien", "student-l2d"]


def test_a_label_that_holds_a_comma_can_be_asked_for(settings: Settings, checkpoints: Path, upload: bytes):
    card = checkpoints / "alien" / "card.json"
    card.write_text(card.read_text().replace('"zebra"', '"zebra, plains"'))
    with TestClient(create_api(settings)) as client:
        explain = "/v1/models/alien:explain"
        (whole,) = post(client, upload, explain, labels=["zebra, plains", "cat"]).json()["explanations"]
        assert whole["labels"] == ["zebra, plains", "cat"]
        assert (
            client.post(explain, json=to_json(upload, labels=["zebra, plains", "cat"])).json()["explanations"][0]["maps"] == whole["maps"]
        )
        assert post(client, upload, models="student-l2d,alien", labels="zebra, plains").json()["labels"] == ["zebra, plains"]
        # Between commas it is no value of its own.
        sentence = refusal(post(client, upload, explain, labels="cat,zebra, plains"), 422, "unknown_label")
        assert sentence.startswith("Unknown label 'zebra'.")


def test_every_label_of_a_request_may_be_a_field(client: TestClient, upload: bytes):
    answer = post(client, upload, labels=["cat", "dog"] * 64, models="student-l2d")
    assert answer.json()["labels"] == ["cat", "dog"]
    assert "at most 256 fields" in refusal(post(client, upload, labels=["cat"] * 257), 400, "bad_request")


def test_blanks_around_names_and_empty_fields_are_nothing(client: TestClient, upload: bytes):
    plain = post(client, upload, labels="cat").json()
    odd = post(client, upload, labels=["", " cat "], models=["", " "], threshold=" 0.5 ", minus=" ", opacity="", kind=" layercam ").json()
    assert [model["name"] for model in odd["models"]] == [model["name"] for model in plain["models"]]
    assert (odd["labels"], odd["threshold"]) == (["cat"], 0.5)
    assert post(client, upload, labels=" ").json()["labels"] == post(client, upload).json()["labels"]


def test_a_type_of_body_is_known_however_it_is_written(client: TestClient, upload: bytes):
    headers = {"Content-Type": "Application/JSON ; charset=utf-8"}
    assert client.post("/v1/models/alien:predict", content=json.dumps(to_json(upload)), headers=headers).status_code == 200


def test_an_upload_reaches_no_disk(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def fail(**_: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    refusal(post(client, b"?" * (2 * 2**20)), 415, "unsupported_picture")


def test_compare_as_numbers(client: TestClient, upload: bytes):
    fields = {"labels": "zebra,cat", "models": "alien,student-l2d"}
    answer = post(client, upload, **fields).json()
    response = post(client, upload, **fields, format="npz")
    assert response.headers["content-type"] == "application/x-npz"
    assert response.headers["content-disposition"].endswith('.npz"')
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        assert arrays["labels"].tolist() == ["zebra", "cat"]
        assert arrays["models"].tolist() == ["alien", "student-l2d"]
        assert arrays["alien/maps"].dtype == np.float32
        np.testing.assert_array_equal(arrays["alien/maps"][1], np.array(answer["models"][0]["maps"]["cat"], dtype=np.float32))
        assert np.isnan(arrays["student-l2d/maps"][0]).all()
        predicted = answer["models"][1]["predictions"]
        assert arrays["student-l2d/labels"].tolist() == [p["label"] for p in predicted]
        np.testing.assert_array_equal(arrays["student-l2d/scores"], np.array([p["score"] for p in predicted], dtype=np.float32))
        assert (float(arrays["threshold"]), str(arrays["kind"])) == (0.5, "layercam")
        assert json.loads(str(arrays["json"]))["image"] == answer["image"]


def test_compare_as_figure(client: TestClient, upload: bytes):
    response = post(client, upload, labels="cat,dog", format="png")
    assert response.headers["content-type"] == "image/png"
    figure = Image.open(io.BytesIO(response.content))
    assert figure.info["dpi"][0] == pytest.approx(300, abs=1)
    assert figure.width > 900
    response = post(client, upload, labels="cat,dog", format="pdf")
    assert response.headers["content-type"] == "application/pdf"
    assert response.content.startswith(b"%PDF")


def test_a_figure_looks_as_asked(client: TestClient, upload: bytes):
    plain = {"labels": "cat", "models": "the-teacher,student-l2d", "format": "png"}
    looks = (
        {},
        {"scale": "map"},
        {"colormap": "jet"},
        {"smooth": "false"},
        {"opacity": "0.5"},
        {"opacity": "0"},
        {"minus": "the-teacher"},
        {"kind": "attention"},
    )
    assert len({post(client, upload, **plain, **look).content for look in looks}) == len(looks)
    refusal(post(client, upload, **plain, opacity="1.5"), 422, "bad_parameter")
    for format in ("png", "npz", "json"):
        sentence = refusal(post(client, upload, **plain | {"format": format}, minus="alien"), 422, "bad_parameter")
        assert "one of those compared, the-teacher, student-l2d; got 'alien'" in sentence


@pytest.mark.parametrize(
    ("kind", "told"), [("layercam", "evidence per picture area"), ("attention", "attention in multiples of an even spread")]
)
def test_answers_are_raw_and_a_figure_of_them_is_per_area(
    client: TestClient, upload: bytes, monkeypatch: pytest.MonkeyPatch, kind: str, told: str
):
    """Models of different sizes share their evidence among different numbers of cells: only per area do they compare."""
    texts = []

    def draw(*given: Any, **look: Any) -> Any:
        figure = draw_figure(*given, **look)
        texts.extend(" ".join(text.get_text().split()) for text in figure.texts)
        return figure

    monkeypatch.setattr("l2d.figure.draw_figure", draw)
    models = post(client, upload, labels="cat", kind=kind).json()["models"]
    maps = [np.array(model["maps"]["cat"]) for model in models]
    assert len({numbers.size for numbers in maps}) > 1
    post(client, upload, labels="cat", kind=kind, format="png")
    assert told in next(text for text in texts if text.startswith("Colours"))
    assert format_number(max(numbers.max() * numbers.size for numbers in maps)) in texts


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


@pytest.mark.parametrize(
    ("data", "status", "code", "sentence"),
    [
        (b"", 400, "bad_picture", "the file is empty"),
        (b"hello", 415, "unsupported_picture", "Expected a picture as JPEG"),
        ("cut", 400, "bad_picture", "damaged or cut off"),
        ("animated", 415, "unsupported_picture", "several frames"),
        ("tiny", 400, "bad_picture", "at least 8 x 8 pixels; got 1 x 1"),
        ("huge", 413, "too_large", "at most 50000000 pixels"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/compare", "/v1/models/alien:predict", "/v1/models/alien:explain"])
def test_bad_pictures_get_a_sentence(
    client: TestClient, photograph: Image.Image, path: str, data: bytes | str, status: int, code: str, sentence: str
):
    buffer = io.BytesIO()
    if data == "cut":
        photograph.save(buffer, "JPEG")
        data = buffer.getvalue()[:-300]
    elif data == "animated":
        photograph.save(buffer, "GIF", save_all=True, append_images=[Image.new("RGB", photograph.size)])
        data = buffer.getvalue()
    elif data == "tiny":
        Image.new("RGB", (1, 1)).save(buffer, "PNG")
        data = buffer.getvalue()
    elif data == "huge":
        Image.new("1", (8, 8)).save(buffer, "PNG")
        data = claim_size(buffer.getvalue(), 20_000, 20_000)
    assert isinstance(data, bytes)
    response = post(client, data, path)
    assert sentence in refusal(response, status, code)
    # The whole body was read: whoever sent it may send another over the same connection.
    assert "connection" not in response.headers
    if path != "/v1/compare":
        assert sentence in refusal(client.post(path, json=to_json(data)), status, code)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"threshold": "2"}, "threshold: Input should be less than or equal to 1; got '2'."),
        ({"threshold": "nan"}, "threshold: "),
        ({"threshold": "high"}, "got 'high'."),
        ({"threshold": ["0.1", "0.2"]}, "The field 'threshold' came 2 times"),
        ({"format": "jpg"}, "format: Input should be 'json', 'npz', 'png' or 'pdf'; got 'jpg'."),
        (
            {"treshold": "0.5"},
            "Unknown field 'treshold'. Known are: image, scale, colormap, smooth, opacity, minus, models, labels, threshold, kind, format.",
        ),
        ({"models": ",".join(["alien"] + [f"m{n}" for n in range(9)])}, "At most 8 models"),
    ],
)
def test_bad_parameters_get_a_sentence(client: TestClient, upload: bytes, fields: dict[str, str], sentence: str):
    assert sentence in refusal(post(client, upload, **fields), 422, "bad_parameter")


def test_a_long_value_is_not_sent_back(client: TestClient, upload: bytes):
    assert "xxx" not in refusal(post(client, upload, threshold="x" * 1000), 422, "bad_parameter")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "instances: Field required."),
        ({"instances": []}, "instances: "),
        ({"instances": [{"image": "abc"}]}, "instances.0.image: "),
        ({"instances": [{"image": {"url": "http://127.0.0.1/"}}]}, "instances.0.image.b64: Field required."),
        ({"instances": [{"image": {"b64": "QUJD"}}], "parameters": {"top": 3}}, "parameters.top: "),
        ({"instances": [{"image": {"b64": "QUJD"}}], "parameters": {"top_k": 0}}, "parameters.top_k: "),
        ({"instances": [{"image": {"b64": "QUJD"}}] * 17}, "At most 16 instances can be sent at once; got 17."),
        ([], "body: "),
    ],
)
def test_bad_json_gets_a_sentence(client: TestClient, body: object, sentence: str):
    assert sentence in refusal(client.post("/v1/models/alien:predict", json=body), 422, "bad_parameter")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 50_000])
def test_what_is_not_json_gets_a_sentence(client: TestClient, body: bytes):
    response = client.post("/v1/models/alien:predict", content=body, headers={"Content-Type": "application/json"})
    assert "body: Invalid JSON" in refusal(response, 422, "bad_parameter")


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "AAAA\nAAAA"])
def test_data_url_and_line_breaks_are_not_base64(client: TestClient, text: str):
    body = {"instances": [{"image": {"b64": text}}]}
    assert "without a 'data:' prefix" in refusal(client.post("/v1/models/alien:predict", json=body), 400, "bad_picture")


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_of_several_pictures_the_bad_one_is_named(client: TestClient, upload: bytes, verb: str):
    path = f"/v1/models/alien:{verb}"
    assert refusal(client.post(path, json=to_json(upload, b"hello", upload)), 415, "unsupported_picture").startswith("instances.1.image: ")
    body = to_json(upload, upload, upload)
    body["instances"][2]["image"]["b64"] = "?"
    assert refusal(client.post(path, json=body), 400, "bad_picture").startswith("instances.2.image: Expected the picture's bytes in base64")


@pytest.mark.parametrize("path", ["/v1/compare", "/v1/models/alien:predict", "/v1/models/alien:explain"])
def test_parameters_in_the_address_are_refused(client: TestClient, upload: bytes, path: str):
    sentence = refusal(post(client, upload, f"{path}?labels=cat&threshold=0.5"), 422, "bad_parameter")
    assert "labels, threshold: send it in the body" in sentence


def test_other_bodies_get_a_sentence(client: TestClient, upload: bytes):
    path = "/v1/compare"
    assert "got 'image/png'" in refusal(
        client.post(path, content=upload, headers={"Content-Type": "image/png"}), 415, "unsupported_media_type"
    )
    assert "got 'no content type'" in refusal(client.post(path), 415, "unsupported_media_type")
    assert "got 'text/plain'" in refusal(
        client.post("/v1/models/alien:predict", content=b"x", headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"
    )
    assert "no such file" in refusal(client.post(path, files={"picture": upload}), 422, "bad_parameter")
    for name in ("picture", "image"):
        text = client.post(path, files={name: upload}, data={"image": "photo.jpg"})
        assert "a file in the field 'image'; the form has text there." in refusal(text, 422, "bad_parameter")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert "multipart form" in refusal(client.post(path, content=b"--y\r\nnothing", headers=broken), 400, "bad_request")
    no_boundary = {"Content-Type": "multipart/form-data"}
    assert "boundary" in refusal(client.post(path, content=b"x", headers=no_boundary), 400, "bad_request")
    two = [("image", ("a.png", upload)), ("image", ("b.png", upload))]
    assert "one file" in refusal(client.post(path, files=two), 400, "bad_request")


@pytest.mark.parametrize("path", ["/v1/compare", "/v1/models/alien:predict"])
def test_too_many_bytes_are_refused(client: TestClient, path: str):
    assert "at most 20971520 bytes; got 2" in refusal(post(client, bytes(21 * 2**20), path), 413, "too_large")
    body = to_json(bytes(16 * 2**20))
    if path != "/v1/compare":
        assert "at most 20971520 bytes" in refusal(client.post(path, json=body), 413, "too_large")


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


def test_failure_says_nothing_of_the_inside(settings: Settings, upload: bytes, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr(OpenVino, "__call__", fail)
    monkeypatch.setattr(Engine, "warm_up", lambda _: None)
    with TestClient(create_api(settings), raise_server_exceptions=False) as client:
        assert "secret" not in refusal(post(client, upload, models="alien"), 500, "internal")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Networks wait until it is set."""
    gate = threading.Event()
    real = OpenVino.__call__

    def wait(self: OpenVino, images: object) -> object:
        assert gate.wait(20)
        return real(self, images)

    monkeypatch.setattr(OpenVino, "__call__", wait)
    yield gate
    gate.set()


def test_full_gate_says_when_to_come_back(settings: Settings, upload: bytes, gate: threading.Event):
    app = create_api(settings.model_copy(update={"max_requests": 2}))
    with TestClient(app) as client, ThreadPoolExecutor(2) as others:
        waiting = [others.submit(post, client, upload, models=name) for name in ("alien", "the-teacher")]
        while app.state.engine._places._value:
            time.sleep(0.01)
        response = post(client, upload, models="alien")
        assert "All 2 places are taken" in refusal(response, 429, "busy")
        assert response.headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200
        gate.set()
        assert [answer.result(20).status_code for answer in waiting] == [200, 200]


def test_late_answer_is_a_timeout(settings: Settings, upload: bytes, gate: threading.Event):
    with TestClient(create_api(settings.model_copy(update={"request_seconds": 0.2}))) as client:
        assert "not ready in time" in refusal(post(client, upload), 504, "too_slow")
        gate.set()


def test_without_any_model_the_api_says_so(settings: Settings, upload: bytes, tmp_path: Path):
    with TestClient(create_api(settings.model_copy(update={"checkpoints": tmp_path / "none"}))) as client:
        assert client.get("/v1/models").json() == {"models": [], "refused": []}
        assert "There is no model" in refusal(post(client, upload), 503, "unavailable")


def test_a_client_that_leaves_within_its_body_is_no_failure_of_the_server(client: TestClient):
    sent: list[Message] = []

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/compare", "query_string": b"", "headers": headers}
    asyncio.run(client.app(scope, leave, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 400


def test_headers_protect_and_nothing_allows_other_origins(client: TestClient, upload: bytes):
    for response in (client.get("/healthz"), post(client, b""), client.get("/v1/nothing"), client.get("/docs")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self'" in response.headers["content-security-policy"]
    asked = client.options("/v1/compare", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"})
    answered = client.post("/v1/compare", files={"image": upload}, headers={"Origin": "http://evil.example"})
    assert answered.status_code == 200
    for response in (asked, answered):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_document_describes_every_route_with_bodies_and_errors(client: TestClient):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) > {
        "/healthz",
        "/readyz",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}:predict",
        "/v1/models/{model}:explain",
        "/v1/compare",
    }
    form = document["paths"]["/v1/compare"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    look = {"scale", "colormap", "smooth", "opacity", "minus"}
    assert set(form["properties"]) == {"image", "models", "labels", "threshold", "kind", "format"} | look
    assert form["properties"]["format"]["enum"] == ["json", "npz", "png", "pdf"]
    assert form["properties"]["labels"]["type"] == "array"
    assert "split at its commas" in form["properties"]["labels"]["description"]
    body = document["paths"]["/v1/models/{model}:explain"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert body["application/json"]["example"]["instances"][0]["image"]["b64"]
    assert "null" not in json.dumps(body["multipart/form-data"]["schema"]), "a field of a form is there or not"
    assert not [path for path, operations in document["paths"].items() if "head" in operations], "said of all of them, not of each"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "$defs" not in json.dumps(document)


def test_document_tells_the_limits_of_its_server_and_what_an_npz_holds(settings: Settings):
    document = create_api(settings.model_copy(update={"max_instances": 5, "max_upload_bytes": 3 * 2**20})).openapi()
    for limit in ("3 MiB", "50,000,000 pixels", "8 models", "128 labels", "5 pictures", "JPEG, PNG, WEBP"):
        assert limit in document["info"]["description"].replace("\n", " ")
    told = document["paths"]["/v1/compare"]["post"]["description"].replace("\n", " ")
    assert "`NAME/maps` (L, h, w): NaN for labels that the model does not know" in told
    for described in (told, document["components"]["schemas"]["ModelAnswer"]["properties"]["maps"]["description"]):
        assert "by the number of its cells" in described


def test_links_of_an_ordered_job_lead_to_routes_that_are_there(client: TestClient):
    document = client.get("/openapi.json").json()
    known = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    links = document["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"]
    assert links.keys() == {"show", "cancel", "stop", "resume", "delete"}
    assert {link["operationId"] for link in links.values()} <= known


def test_examples_of_the_document_work(client: TestClient):
    document = client.get("/openapi.json").json()
    for verb in ("predict", "explain"):
        example = document["paths"][f"/v1/models/{{model}}:{verb}"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(f"/v1/models/alien:{verb}", json=example).status_code == 200


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with those models that come with the program and that its examples name."""
    folder = tmp_path_factory.mktemp("shipped")
    for name in EXAMPLE_MODELS:
        shutil.copytree(ROOT / "checkpoints" / name, folder / "checkpoints" / name)
    # Networks that were converted once need not be again.
    settings = configure(folder / "checkpoints").model_copy(update={"cache": ROOT / "runs" / "cache"})
    with TestClient(create_api(settings)) as client:
        while not client.app.state.engine.ready:
            time.sleep(0.05)
        yield client


@pytest.mark.parametrize("path", ["/v1/compare", "/v1/models/{model}:predict", "/v1/models/{model}:explain"])
def test_every_field_of_a_form_has_an_example_that_the_shipped_models_answer(shipped: TestClient, upload: bytes, path: str):
    operation = shipped.get("/openapi.json").json()["paths"][path]["post"]
    fields = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    given = {name: field["examples"][0] for name, field in fields.items() if name != "image"}
    address = path.format(**{parameter["name"]: parameter["schema"]["examples"][0] for parameter in operation.get("parameters", [])})
    answer = post(shipped, upload, address, **given)
    assert answer.status_code == 200, answer.text
    if path == "/v1/compare":
        assert [model["name"] for model in answer.json()["models"]] == given["models"]
        assert answer.json()["labels"] == given["labels"]
        assert post(shipped, upload, address, **given | {"format": "png"}).headers["content-type"] == "image/png"


def test_docs_need_no_other_server(client: TestClient):
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
