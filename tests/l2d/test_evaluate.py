"""Scores of a network on pictures, whatever the batches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from l2d.checkpoint import ModelCard
from l2d.data.images import Index, open_image, to_input
from l2d.evaluate import check_labels, compare, evaluate, predict
from l2d.metrics import score_report
from l2d.model import LabelNet, create_model

COLOURS = ("red", "green", "blue")


def make_card(labels: tuple[str, ...] = COLOURS) -> ModelCard:
    return ModelCard("tiny", "Tiny", "teacher", "vanilla", "test_resnet", labels, 32, width=16, feedforward=24, mean=(0.4, 0.5, 0.6))


@pytest.fixture(scope="module")
def model() -> LabelNet:
    torch.manual_seed(0)
    return create_model("test_resnet", 3, image_size=32, width=16, feedforward=24).eval()


def test_every_picture_is_fed_as_its_card_says(model: LabelNet, bands: Index) -> None:
    scores = predict(model, make_card(), bands)
    assert scores.shape == (24, 3)
    for row in (0, 23):
        with torch.no_grad():
            expected = model(to_input(open_image(bands.paths[row]), 32, (0.4, 0.5, 0.6), (1.0, 1.0, 1.0))).logits.sigmoid()[0]
        torch.testing.assert_close(scores[row], expected)


@pytest.mark.parametrize("batch_size", [1, 7, 24])
def test_uneven_batches_change_nothing(model: LabelNet, bands: Index, batch_size: int) -> None:
    torch.testing.assert_close(predict(model, make_card(), bands, batch_size=batch_size), predict(model, make_card(), bands))


def test_the_report_is_that_of_the_probabilities(model: LabelNet, bands: Index) -> None:
    expected = score_report(predict(model, make_card(), bands), bands.targets, bands.labels)
    assert evaluate(model, make_card(), bands) == expected
    assert expected["images"] == 24


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as show on which side of zero an interval lies."""
    monkeypatch.setattr("l2d.bootstrap.DRAWS", 200)


@pytest.mark.usefixtures("few_draws")
def test_what_a_network_scores_more_is_the_difference_of_the_reports() -> None:
    """Of scores that follow the targets closely and less closely: the interval lies above zero; of a network and itself it is zero."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(120, 5, generator=generator) < 0.3).long()
    noise = torch.randn(120, 5, generator=generator)
    close, far = ((2 * targets + strength * noise).sigmoid() for strength in (0.5, 3.0))
    found = compare(close, far, targets)
    first, second = (score_report(scores, targets, list("abcde")) for scores in (close, far))
    assert found["mAP"]["difference"] == pytest.approx(first["mAP"] - second["mAP"])
    for name in ("OF1", "CF1"):
        assert found[name]["difference"] == pytest.approx(first["oracle_k"][name] - second["oracle_k"][name])
    assert all(0 < found[name]["low"] < found[name]["difference"] < found[name]["high"] for name in ("mAP", "OF1", "CF1"))
    assert all(set(numbers.values()) == {0.0} for numbers in compare(close, close, targets).values())


def test_a_picture_that_is_drawn_twice_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([0, 0, 0, 1, 2, 5, 5])
    monkeypatch.setattr("l2d.evaluate.find_intervals", lambda differ, pictures, progress: differ(rows))
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(9, 4, generator=generator) < 0.5).long()
    ours, theirs = torch.rand(2, 9, 4, generator=generator)
    first, second = (score_report(scores[rows], targets[rows], list("abcd")) for scores in (ours, theirs))
    f1 = {name: pytest.approx(first["oracle_k"][name] - second["oracle_k"][name]) for name in ("OF1", "CF1")}
    assert compare(ours, theirs, targets) == {"mAP": pytest.approx(first["mAP"] - second["mAP"]), **f1}


@pytest.mark.usefixtures("few_draws")
def test_a_data_set_without_any_label_has_no_differences() -> None:
    scores = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    found = compare(scores, scores, torch.zeros(4, 3, dtype=torch.long))
    assert set(found["mAP"].values()) == set(found["CF1"].values()) == {None}


def test_progress_counts_batches(model: LabelNet, bands: Index) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(model, make_card(), bands, progress=lambda done, total: seen.append((done, total)), batch_size=10)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_every_module_keeps_its_mode_also_after_an_error(bands: Index) -> None:
    model = create_model("test_resnet", 3, image_size=32, width=16, feedforward=24).train()
    model.backbone.bn1.eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict(model, make_card(), bands)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    missing = bands.select([0])._replace(paths=[Path("nowhere.png")])
    with pytest.raises(ValueError, match="nowhere"):
        predict(model, make_card(), missing)
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (("green", "red", "blue"), "tiny was trained for 3 labels; the data set has 3: the same labels in another order.*select_labels"),
        (("red", "green"), r"has 3: 1 unknown \(blue\)\.$"),
        (("red", "green", "blue", "pink"), r"has 3: 1 missing \(pink\)\. .*select_labels"),
        (("red", "green", "blue", "a", "b", "c", "d"), r"4 missing \(a, b, c, \.\.\.\)"),
    ],
)
def test_other_labels_are_refused(labels: tuple[str, ...], sentence: str, bands: Index) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_labels(make_card(labels), bands)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": torch.zeros(23, 3)}, r"An Index must give targets of shape \(24, 3\), pictures and labels; it gives \(23, 3\)"),
        ({"targets": np.zeros((24, 3))}, "Expected tensors of torch's; got ndarray"),
        ({"boxes": [{}]}, "boxes for each of 24 pictures; it gives 1"),
    ],
)
def test_an_index_whose_parts_do_not_fit_is_refused(change: dict[str, object], sentence: str, bands: Index) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_labels(make_card(bands.labels), bands._replace(**change))
