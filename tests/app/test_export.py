"""A comparison as a file: numbers, and a figure that looks as asked."""

import io
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from l2d.figure import draw_figure
from l2d.layers import format_number
from tests.app.conftest import post, refusal


def test_compare_as_numbers(client: TestClient, upload: bytes):
    fields = {"labels": "zebra,cat", "models": "alien,student-l2d"}
    answer = post(client, upload, **fields).json()
    response = post(client, upload, **fields, format="npz")
    assert response.headers["content-type"] == "application/x-npz"
    assert response.headers["content-disposition"].endswith('.npz"')
    assert "content-encoding" not in response.headers, "packed already"
    with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
        assert arrays["labels"].tolist() == ["zebra", "cat"]
        assert arrays["models"].tolist() == ["alien", "student-l2d"]
        assert {arrays[name].dtype.name for name in ("alien/maps", "alien/scores", "student-l2d/maps", "student-l2d/scores")} == {"float32"}
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
    # It is packed as it is.
    assert "content-encoding" not in response.headers
    figure = Image.open(io.BytesIO(response.content))
    assert figure.info["dpi"][0] == pytest.approx(300, abs=1)
    assert figure.width > 900
    response = post(client, upload, labels="cat,dog", format="pdf")
    assert response.headers["content-type"] == "application/pdf"
    assert "content-encoding" not in response.headers, "packed already"
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
        {"threshold": "0.01"},
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
