"""What a request may hold, in a form or in JSON, and the sentence for all else."""

import gzip
import json
import struct
import zlib
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.server import create_api
from app.settings import Settings
from tests.app.conftest import encode, post, refusal, to_json


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


def claim_size(png: bytes, width: int, height: int) -> bytes:
    """The same PNG with another size in its header."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


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
    if data == "cut":
        data = encode(photograph, "JPEG")[:-300]
    elif data == "animated":
        data = encode(photograph, "GIF", save_all=True, append_images=[Image.new("RGB", photograph.size)])
    elif data == "tiny":
        data = encode(Image.new("RGB", (1, 1)))
    elif data == "huge":
        data = claim_size(encode(Image.new("1", (8, 8))), 20_000, 20_000)
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
    # With its quotes, 80 letters are sent back and 81 are not.
    for length, shown in ((78, True), (79, False), (1000, False)):
        sentence = refusal(post(client, upload, threshold="x" * length), 422, "bad_parameter")
        assert (f"; got '{'x' * length}'." in sentence, "xxx" in sentence) == (shown, shown)


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


def test_of_many_faults_the_first_three_are_told_in_the_sentence_and_all_in_the_details(client: TestClient):
    response = client.post("/v1/models/alien:predict", json={"instances": [{"image": "abc"}] * 4})
    sentence, details = refusal(response, 422, "bad_parameter"), response.json()["error"]["details"]
    assert [detail.partition(":")[0] for detail in details] == [f"instances.{row}.image" for row in range(4)]
    assert sentence.endswith(": " + " ".join(details[:3]))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 50_000])
def test_what_is_not_json_gets_a_sentence(client: TestClient, body: bytes):
    response = client.post("/v1/models/alien:predict", content=body, headers={"Content-Type": "application/json"})
    assert "body: Invalid JSON" in refusal(response, 422, "bad_parameter")


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "AAAA\nAAAA", "AAAé"])
def test_data_url_line_breaks_and_letters_with_accents_are_not_base64(client: TestClient, text: str):
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
    packed = client.post(path, content=gzip.compress(upload), headers=broken | {"Content-Encoding": "gzip"})
    assert "Expected an uncompressed body; got one with 'Content-Encoding: gzip'" in refusal(packed, 415, "unsupported_media_type")
    assert client.post(path, files={"image": upload}, headers={"Content-Encoding": "Identity"}).status_code == 200
    two = [("image", ("a.png", upload)), ("image", ("b.png", upload))]
    assert "one file" in refusal(client.post(path, files=two), 400, "bad_request")
