import base64
import hashlib
import io
import json
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from app.catalog import Catalog
from app.engine import Engine
from app.schemas import CompareAnswer
from app.ui.compare import Desk, Request, name_file
from app.ui.examples import EXAMPLES
from app.uploads import read_picture
from tests.app.conftest import configure


@pytest.fixture(scope="module")
def desk(made_checkpoints):
    """Shared: a test that changes a model, or minds what the engine remembers, takes its own."""
    settings = configure(made_checkpoints)
    engine = Engine(Catalog(settings.checkpoints, settings.default_models, cache=settings.cache), settings)
    yield Desk(engine)
    engine.close()


@pytest.fixture
def own_desk(engine):
    return Desk(engine)


def send(upload, **request):
    """A message as Gradio hands it over when the script sends a file along."""
    return SimpleNamespace(data={"request": json.dumps(request)}, files=[("photograph.png", upload)])


def test_a_fresh_page_gets_models_examples_and_the_first_example_compared(desk):
    opening = desk.open(None)
    assert [model["name"] for model in opening["models"]] == ["the-teacher", "student-vanilla", "student-l2d", "alien"]
    assert [model["default"] for model in opening["models"]] == [True, True, True, False]
    assert [example["name"] for example in opening["examples"]] == [example.name for example in EXAMPLES]
    assert [model["name"] for model in opening["first"]["answer"]["models"]] == ["the-teacher", "student-vanilla", "student-l2d"]
    assert opening["first"]["preview"].startswith("data:image/jpeg;base64,")


def test_the_page_decodes_and_draws_where_the_api_does(own_desk, upload, monkeypatch):
    """Two at a time, however many ask, and within the time of a request."""
    threads = []

    def read(*arguments):
        threads.append(threading.current_thread().name)
        return read_picture(*arguments)

    for module in ("app.ui.compare", "app.export"):
        monkeypatch.setattr(f"{module}.read_picture", read)
    own_desk.answer(own_desk.compare, send(upload, preview=True))
    own_desk.answer(own_desk.save, send(upload, file="png"))
    assert [name.partition("_")[0] for name in threads] == ["decode", "decode"]


def test_without_models_the_page_says_so(own_desk, checkpoints):
    for card in checkpoints.glob("*/card.json"):
        card.write_text("no card")
    opening = own_desk.open(None)
    assert opening["first"] is None
    assert "There is no model" in opening["error"]


def test_a_link_opens_what_it_names(desk, upload):
    sha256 = desk.answer(desk.compare, send(upload))["answer"]["image"]["sha256"]
    asked = {"models": ["student-l2d"], "labels": ["sky"], "kind": "attention", "preview": True}
    for source in ({"example": "cat"}, {"sha256": sha256}):
        opening = desk.open(asked | source)
        answer = opening["first"]["answer"]
        assert (answer["labels"], answer["kind"], len(answer["models"])) == (["sky"], "attention", 1)
        assert (opening["error"], opening["example"]) == ("", source.get("example"))
    assert answer["image"]["sha256"] == sha256


@pytest.mark.parametrize(
    ("link", "sentence"),
    [
        ({"example": "cat", "kind": "magic"}, "reload the page"),
        ({"example": "dog"}, "Unknown example 'dog'"),
        ("nonsense", "reload the page"),
    ],
)
def test_a_link_that_cannot_be_followed_says_so_and_opens_as_ever(desk, link, sentence):
    opening = desk.open(link)
    assert sentence in opening["error"]
    assert opening["example"] == EXAMPLES[0].name
    assert opening["first"]["answer"]["kind"] == "layercam"
    assert "preview" in opening["first"]


@pytest.mark.parametrize(
    ("names", "models", "labels", "told"),
    [
        ({"labels": ["unicorn", "sky"]}, ["student-l2d"], ["sky"], ["no label 'unicorn'"]),
        ({"models": ["gone", "student-l2d"]}, ["student-l2d"], ["cat"], ["model 'gone'"]),
        ({"models": ["gone"], "labels": ["unicorn"]}, ["the-teacher", "student-vanilla", "student-l2d"], None, ["'gone'", "'unicorn'"]),
    ],
    ids=["a label", "a model", "all of it"],
)
def test_what_a_link_names_and_is_not_there_is_told_and_the_rest_is_shown(desk, names, models, labels, told):
    opening = desk.open({"example": "cat", "models": ["student-l2d"], "labels": ["cat"], "kind": "attention", "preview": True} | names)
    answer = opening["first"]["answer"]
    assert ([model["name"] for model in answer["models"]], answer["kind"], opening["example"]) == (models, "attention", "cat")
    assert labels is None or answer["labels"] == labels
    assert all(part in opening["error"] for part in told)


def test_of_more_labels_in_a_link_than_a_request_may_name_the_first_are_mapped(desk, monkeypatch):
    monkeypatch.setattr(desk, "settings", desk.settings.model_copy(update={"max_labels": 1}))
    opening = desk.open({"example": "cat", "models": ["student-l2d"], "labels": ["sky", "cat"], "preview": True})
    assert (opening["first"]["answer"]["labels"], opening["error"], opening["max_labels"]) == (["sky"], "", 1)


def test_for_a_forgotten_photograph_the_first_example_stands_in(desk):
    opening = desk.open({"sha256": "0" * 64, "models": ["student-l2d"], "labels": ["sky"], "kind": "attention", "preview": True})
    answer = opening["first"]["answer"]
    assert "no longer remembers" in opening["error"]
    assert opening["example"] == EXAMPLES[0].name
    assert ([model["name"] for model in answer["models"]], answer["kind"]) == (["student-l2d"], "attention")


def test_the_photograph_travels_once_and_another_label_costs_only_the_head(own_desk, upload):
    first = own_desk.answer(own_desk.compare, send(upload, labels=["cat"], preview=True))
    sha256 = first["answer"]["image"]["sha256"]
    second = own_desk.answer(own_desk.compare, {"sha256": sha256, "labels": ["dog"]})
    assert "preview" in first
    assert "preview" not in second
    for model in second["answer"]["models"]:
        assert list(model["maps"]) == ["dog"]
        assert model["cached"]
        assert model["timings_ms"]["network"] == model["timings_ms"]["decode"] == 0


def test_a_photograph_that_is_no_longer_remembered_is_asked_for_again(desk):
    assert desk.answer(desk.compare, {"sha256": "0" * 64}) == {"forgotten": True}


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({"example": "dog"}, "Unknown example 'dog'"),
        ({"example": "cat", "models": ["nobody"]}, "Unknown model 'nobody'"),
        ({"example": "cat", "labels": ["unicorn"]}, "Unknown label 'unicorn'"),
        ({"example": "cat", "threshold": "high"}, "reload the page"),
        ({"example": "cat", "file": "exe"}, "reload the page"),
        ("nonsense", "reload the page"),
    ],
)
def test_a_refusal_is_a_sentence(desk, request_, sentence):
    assert sentence in desk.answer(desk.compare, request_)["error"]


def test_what_is_no_picture_is_refused_in_words(desk):
    assert "Expected a picture" in desk.answer(desk.compare, send(b"not a picture"))["error"]


def test_everything_shown_can_be_saved(desk, upload):
    shown = {"models": ["student-l2d"], "labels": ["cat", "sky"]}
    saved = {kind: desk.answer(desk.save, send(upload, file=kind, **shown)) for kind in ("png", "npz", "json")}
    content = {kind: base64.b64decode(file["base64"]) for kind, file in saved.items()}
    with Image.open(io.BytesIO(content["png"])) as figure:
        assert figure.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    numbers = np.load(io.BytesIO(content["npz"]), allow_pickle=False)
    maps = json.loads(content["json"])["models"][0]["maps"]
    np.testing.assert_allclose(numbers["student-l2d/maps"], [maps["cat"], maps["sky"]], rtol=1e-5)
    assert [saved[kind]["type"] for kind in ("png", "npz", "json")] == ["image/png", "application/x-npz", "application/json"]


def test_a_saved_figure_looks_as_the_page_does(desk, upload):
    shown = {"models": ["the-teacher", "student-l2d"], "labels": ["cat"], "file": "png"}
    looks = (
        {},
        {"scale": "map"},
        {"colormap": "jet"},
        {"smooth": False},
        {"opacity": 0.85},
        {"minus": "the-teacher"},
        {"threshold": 0.01},
        {"kind": "attention"},
    )
    assert len({desk.answer(desk.save, send(upload, **shown, **look))["base64"] for look in looks}) == len(looks)


@pytest.mark.parametrize(
    ("look", "name"),
    [
        ({}, "layercam-cat-sky.png"),
        ({"kind": "attention", "labels": ["cat", "dog", "sky", "car"]}, "attention-4-labels.png"),
        ({"minus": "the-teacher", "threshold": 0.4}, "layercam-threshold-0.4-minus-the-teacher-cat-sky.png"),
        ({"scale": "map", "colormap": "jet", "smooth": False, "opacity": 0.5}, "layercam-scale-map-colormap-jet-cells-cat-sky.png"),
        # Numbers are the same, however they are drawn.
        ({"scale": "map", "minus": "the-teacher", "threshold": 0.4, "file": "json"}, "layercam-threshold-0.4-cat-sky.json"),
    ],
)
def test_a_file_is_named_by_what_it_shows(desk, upload, look, name):
    shown = {"models": ["the-teacher", "student-l2d"], "labels": ["cat", "sky"], "file": "png"}
    reply = desk.answer(desk.save, send(upload, **shown | look))
    assert reply["name"] == f"l2d-{hashlib.sha256(upload).hexdigest()[:8]}-{name}"


def test_a_files_name_is_one_on_every_file_system():
    labels = ["a/b: <c>?", "Katze \u732b.", "x" * 300]
    answer = CompareAnswer(image={"width": 1, "height": 1, "sha256": "0" * 64}, labels=labels, threshold=0.5, kind="layercam", models=[])
    name = name_file(answer, Request(file="pdf"))
    assert re.fullmatch(r"[\w.-]{1,124}\.pdf", name, re.ASCII)
    assert name.startswith("l2d-00000000-layercam-a-b-c-Katze-.-xxx")
