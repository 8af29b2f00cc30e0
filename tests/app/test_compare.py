"""What an answer holds: which labels, in which order, and what a model that does not know one does."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.compare import compare, explain, predict, round_floats
from app.engine import Engine
from app.errors import ParameterError, PictureFormatError, RequestError, TooLargeError, UnknownLabelError, UnknownModelError
from tests.app.conftest import encode, encode_flat


def test_default_models_are_compared_in_their_order(engine: Engine, upload: bytes):
    answer = compare(engine, upload)
    assert [model.name for model in answer.models] == ["the-teacher", "student-vanilla", "student-l2d"]
    assert (answer.image.width, answer.image.height) == (120, 90)
    assert answer.threshold == 0.5
    assert answer.models[0].mAP == 12.5
    for model, entry in zip(answer.models, engine.catalog.choose(None, 8), strict=True):
        told = model.model_dump(include={"title", "role", "method", "image_size"})
        assert told == entry.detail.model_dump(include=set(told))
    assert answer.models[0].map_size == (3, 3)
    assert np.array(answer.models[0].maps[answer.labels[0]]).shape == (3, 3)
    for spent in (model.timings_ms for model in answer.models):
        assert min(spent.decode, spent.network, spent.maps) > 0
        assert spent.total == pytest.approx(spent.decode + spent.network + spent.maps, abs=0.002)
    with engine.place() as ticket:
        (again,) = engine.look(upload, engine.catalog.choose(["the-teacher"], 8), ticket)
    assert answer.models[0].timings_ms.network == pytest.approx(1000 * again.sight.stages.network, abs=0.001)


def test_a_model_is_told_of_as_it_is_listed_now_also_in_a_picture_that_it_saw_before(engine: Engine, checkpoints: Path, upload: bytes):
    assert compare(engine, upload, ["alien"]).models[0].title == "Alien"
    shutil.copytree(checkpoints / "alien", checkpoints / "copy")
    assert compare(engine, upload, ["alien"]).models[0].title == "alien"


def test_of_several_pictures_each_is_looked_at_as_if_it_came_alone(engine: Engine, upload: bytes):
    pictures = [upload, encode(Image.linear_gradient("L"))]
    alone = [compare(engine, picture, ["student-l2d"]) for picture in pictures]
    together = explain(engine, pictures, "student-l2d")
    assert [answer.threshold for answer in together] == [0.5, 0.5]
    for one, same, predicted in zip(alone, together, predict(engine, pictures, "student-l2d"), strict=True):
        assert (one.image, one.labels, one.models[0].maps) == (same.image, same.labels, same.models[0].maps)
        assert one.models[0].predictions == same.models[0].predictions == predicted
    assert [answer.labels for answer in explain(engine, pictures, "student-l2d", ["sky"])] == [["sky"], ["sky"]]


def test_of_several_pictures_the_bad_one_is_named(engine: Engine, upload: bytes):
    engine.settings = engine.settings.model_copy(update={"max_pixels": 11_000})
    for read in (explain, predict):
        with pytest.raises(PictureFormatError, match=r"^instances\.1\.image: Expected a picture"):
            read(engine, [upload, b"text"], "student-l2d")
        with pytest.raises(PictureFormatError, match=r"^Expected a picture"):
            read(engine, [b"text"], "student-l2d")
        with pytest.raises(TooLargeError, match=r"^instances\.1\.image: .* at most 11000 pixels"):
            read(engine, [upload, encode_flat(0, 200)], "student-l2d")


def test_a_copy_of_a_model_goes_by_its_own_name(engine: Engine, checkpoints: Path, upload: bytes):
    shutil.copytree(checkpoints / "alien", checkpoints / "copy")
    for names in (["alien"], ["alien", "copy"], ["copy"]):
        assert [model.name for model in compare(engine, upload, names).models] == names


def test_predictions_are_all_labels_most_probable_first(engine: Engine, upload: bytes):
    for model in compare(engine, upload).models:
        scores = [prediction.score for prediction in model.predictions]
        assert scores == sorted(scores, reverse=True)
        assert sorted(prediction.label for prediction in model.predictions) == ["car", "cat", "cup", "dog", "sky"]


def test_labels_above_the_threshold_are_shown_by_best_score(engine: Engine, upload: bytes):
    everything = compare(engine, upload, threshold=0.0)
    best = {
        label: max(p.score for model in everything.models for p in model.predictions if p.label == label) for label in everything.labels
    }
    assert everything.labels == sorted(best, key=lambda label: -best[label])
    assert len(everything.labels) == 5
    middle = sorted(best.values())[2]
    assert compare(engine, upload, threshold=middle).labels == everything.labels[:3]
    assert compare(engine, upload, threshold=1.0).labels == everything.labels[:3]


def test_asked_labels_keep_their_order_and_come_once(engine: Engine, upload: bytes):
    answer = compare(engine, upload, labels=["sky", "cat", "sky"])
    assert answer.labels == ["sky", "cat"]
    assert all(list(model.maps) == ["sky", "cat"] for model in answer.models)


def test_label_that_one_model_does_not_know_is_missing_there(engine: Engine, upload: bytes):
    answer = compare(engine, upload, ["alien", "student-l2d"], ["zebra", "cat", "dog"])
    assert answer.labels == ["zebra", "cat", "dog"]
    assert [list(model.maps) for model in answer.models] == [["zebra", "cat"], ["cat", "dog"]]
    assert {p.label for p in answer.models[0].predictions} == {"cat", "zebra"}


def test_label_that_no_chosen_model_knows_is_refused(engine: Engine, upload: bytes):
    with pytest.raises(UnknownLabelError, match=r"Unknown label 'zebra'\. Known are: cat, dog, car, cup, sky\."):
        compare(engine, upload, ["student-l2d"], ["zebra"])
    with pytest.raises(UnknownLabelError, match="Did you mean 'cat'"):
        compare(engine, upload, labels=["cta"])


def test_of_an_endless_label_only_the_beginning_is_looked_at(engine: Engine, upload: bytes):
    tracemalloc.start()
    with pytest.raises(UnknownLabelError) as refused:
        compare(engine, upload, labels=["cta" * 10**6])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(refused.value)) < 200
    assert most < 20 * 2**20


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_threshold_is_a_probability(engine: Engine, upload: bytes, threshold: float):
    with pytest.raises(ParameterError, match="a probability from 0 to 1; got"):
        compare(engine, upload, threshold=threshold)


def test_as_many_labels_and_models_are_compared_as_the_settings_allow(engine: Engine, upload: bytes):
    engine.settings = engine.settings.model_copy(update={"max_labels": 2, "max_models": 2})
    answer = compare(engine, upload, ["alien", "the-teacher"], ["cat", "zebra"])
    assert (len(answer.models), answer.labels) == (2, ["cat", "zebra"])
    with pytest.raises(ParameterError, match="At most 2 labels can be mapped at once; got 3"):
        compare(engine, upload, ["alien", "the-teacher"], ["cat", "zebra", "dog"])
    with pytest.raises(ParameterError, match="At most 2 models can be compared at once; got 3"):
        compare(engine, upload, ["alien", "the-teacher", "student-l2d"], ["cat"])
    engine.settings = engine.settings.model_copy(update={"max_labels": 1})
    with pytest.raises(ParameterError, match="At most 1 label can be mapped at once; got 2"):
        compare(engine, upload, ["alien"], ["cat", "zebra"])


def test_names_are_checked_before_the_picture(engine: Engine):
    with pytest.raises(UnknownModelError):
        compare(engine, b"not a picture", ["nobody"])
    with pytest.raises(RequestError, match="Expected a picture"):
        compare(engine, b"not a picture")


def test_floats_are_short_and_exact():
    numbers = np.array([[0.1, 1 / 3], [1e-8, 12345.678]], dtype=np.float32)
    rows = round_floats(numbers)
    assert repr(rows[0][0]) == "0.1"
    assert np.array_equal(np.array(rows, dtype=np.float32), numbers)
