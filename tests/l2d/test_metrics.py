"""Metrics against scikit-learn and loops, and where nothing is defined."""

import json
import math
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from l2d.metrics import (
    average_precisions,
    f1_scores,
    predict_above,
    predict_oracle_k,
    predict_top,
    score_report,
    tune_thresholds,
    weighted_precisions,
)

NAMES = ("cat", "dog", "bird", "boat", "bus", "car")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """scikit-learn's metrics, imported by the process that needs them: it takes a second."""
    import sklearn.metrics

    return sklearn.metrics


def draw(seed: int, images: int = 50, *, steps: int = 0, rate: float = 0.3) -> tuple[Tensor, Tensor]:
    """Scores and targets of six labels; `steps` rounds the scores, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(images, len(NAMES), generator=generator)
    targets = (torch.rand(images, len(NAMES), generator=generator) < rate).float()
    return (scores * steps).round() / steps if steps else scores, targets


def keep_label_present(targets: Tensor) -> Tensor:
    targets[0] = 1.0
    return targets


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns_ties_included(reference: ModuleType, seed: int, steps: int):
    scores, targets = draw(seed, steps=steps)
    targets = keep_label_present(targets)
    expected = [100 * reference.average_precision_score(targets[:, c], scores[:, c]) for c in range(len(NAMES))]
    assert average_precisions(scores, targets).tolist() == pytest.approx(expected, abs=1e-10)
    assert score_report(scores, targets, NAMES)["mAP"] == pytest.approx(sum(expected) / len(expected), abs=1e-10)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("seed", range(5))
def test_images_that_count_several_times_are_repeated_and_others_left_out(seed: int, steps: int):
    scores, targets = draw(seed, steps=steps)
    rows = torch.randint(50, (50,), generator=torch.Generator().manual_seed(seed))
    measure = weighted_precisions(scores, targets)
    expected = average_precisions(scores[rows], targets[rows])
    torch.testing.assert_close(measure(torch.bincount(rows, minlength=50)), expected, rtol=0, atol=1e-10, equal_nan=True)


def test_average_precision_worked_by_hand():
    # Ranks of the positives: 1 and 3, so (1/1 + 2/3) / 2.
    scores, targets = torch.tensor([[0.9, 0.8, 0.7, 0.1], [1.0, 0, 1, 0]])[:, :, None]
    assert average_precisions(scores, targets).item() == pytest.approx(100 * 5 / 6)


def test_average_precision_looks_at_the_order_alone_so_logits_may_be_given():
    scores, targets = draw(0)
    torch.testing.assert_close(
        average_precisions(scores.double().logit(), targets), average_precisions(scores, targets), rtol=0, atol=1e-10
    )


def test_equal_scores_give_the_share_of_positives_in_any_order():
    targets = torch.tensor([1.0, 0, 0, 1, 0])
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 2, 4, 0, 3]):
        assert average_precisions(torch.full((5, 1), 0.3), targets[order, None]).item() == pytest.approx(40.0)


def test_labels_without_positives_are_left_out_and_counted():
    scores, targets = draw(0)
    targets[:, [1, 4]] = 0
    report = score_report(scores, targets, NAMES)
    assert report["labels_without_positives"] == 2
    assert [label for label, value in report["per_label"].items() if value is None] == ["dog", "bus"]
    rest = [value for value in report["per_label"].values() if value is not None]
    assert report["mAP"] == pytest.approx(sum(rest) / 4)
    assert average_precisions(scores, targets).isnan().tolist() == [label in (1, 4) for label in range(6)]


@pytest.mark.parametrize("seed", range(5))
def test_f1s_are_scikit_learns(reference: ModuleType, seed: int):
    scores, targets = draw(seed, images=12)
    targets = keep_label_present(targets)
    predicted = predict_above(scores, 0.6)
    functions = {"P": reference.precision_score, "R": reference.recall_score, "F1": reference.f1_score}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about 0 / 0, which both count as 0
        expected = {
            f"{letter}{name}": 100 * function(targets.numpy(), predicted.numpy(), average=average, zero_division=0)
            for letter, average in (("O", "micro"), ("C", "macro"))
            for name, function in functions.items()
        }
    expected["CF1_of_means"] = 2 * expected["CP"] * expected["CR"] / (expected["CP"] + expected["CR"])
    assert f1_scores(predicted, targets) == pytest.approx(expected, abs=1e-10)


def test_the_two_definitions_of_cf1_differ():
    # Label 0: precision 1, recall 1/2, F1 2/3. Label 1: precision 1/2, recall 1, F1 2/3. Means: 3/4 and 3/4.
    predicted = torch.tensor([[1, 1], [0, 1]]).bool()
    scores = f1_scores(predicted, torch.tensor([[1.0, 1], [1, 0]]))
    assert scores["CF1"] == pytest.approx(100 * 2 / 3)
    assert scores["CF1_of_means"] == pytest.approx(75.0)


def test_false_alarms_on_labels_without_positives_count_over_all_but_not_per_label():
    targets = torch.tensor([[1.0, 0], [1, 0]])
    alarmed = f1_scores(torch.tensor([[1, 1], [1, 1]]).bool(), targets)
    assert (alarmed["OP"], alarmed["CP"], alarmed["CF1"]) == (50.0, 100.0, 100.0)


def test_nothing_predicted_and_nothing_there():
    nothing = torch.zeros(3, 2)
    assert f1_scores(nothing.bool(), torch.ones(3, 2)) == dict.fromkeys(("OP", "OR", "OF1", "CP", "CR", "CF1", "CF1_of_means"), 0.0)
    empty = f1_scores(nothing.bool(), nothing)
    assert (empty["OF1"], empty["CF1"], empty["CF1_of_means"]) == (0.0, None, None)


@pytest.mark.parametrize("steps", [0, 4])
def test_oracle_k_predicts_as_many_labels_as_are_true(steps: int):
    scores, targets = draw(3, steps=steps)
    targets[:2] = 0
    predicted = predict_oracle_k(scores, targets)
    assert predicted.sum(1).tolist() == targets.sum(1).tolist()
    for row, chosen in zip(scores.tolist(), predicted.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda label: (-row[label], label))[: sum(chosen)]
        assert sorted(best) == [label for label, said in enumerate(chosen) if said]


def test_top_takes_the_first_of_equals_and_all_of_few():
    assert predict_top(torch.tensor([[0.5, 0.5, 0.5, 0.9]]), 3).tolist() == [[True, True, False, True]]
    assert predict_top(torch.tensor([[0.1, 0.2]]), 3).all()


def test_every_protocol_of_a_report_worked_by_hand():
    scores = torch.tensor([[0.9, 0.3, 0.4, 0.1], [0.9, 0.8, 0.7, 0.6]])
    targets = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 1]])
    report = score_report(scores, targets, NAMES[:4], torch.tensor([0.95, 0.95, 0.35, 0.55]))
    # Right ones among those predicted, and among the four that are there.
    counts = {"oracle_k": (3, 4), "threshold": (3, 5), "threshold_tuned": (2, 3), "top3": (3, 6), "top3_threshold": (2, 4)}
    for protocol, (right, said) in counts.items():
        assert (report[protocol]["OP"], report[protocol]["OR"]) == pytest.approx((100 * right / said, 100 * right / 4)), protocol


def test_a_probability_at_the_threshold_is_predicted():
    scores = torch.tensor([[0.5, 0.4999]])
    assert predict_above(scores, 0.5).tolist() == [[True, False]]
    for each in ([0.6, 0.4], np.array([0.6, 0.4]), torch.tensor([0.6, 0.4])):
        assert predict_above(scores, each).tolist() == [[False, True]]


@pytest.mark.parametrize("steps", [0, 5])
@pytest.mark.parametrize("seed", range(4))
def test_tuned_thresholds_give_each_label_its_best_f1(reference: ModuleType, seed: int, steps: int):
    scores, targets = draw(seed, steps=steps)
    targets = keep_label_present(targets)
    chosen = predict_above(scores, tune_thresholds(scores, targets))
    for c in range(len(NAMES)):
        precision, recall, _ = reference.precision_recall_curve(targets[:, c], scores[:, c])
        best = max(2 * precision * recall / (precision + recall).clip(1e-9))
        assert reference.f1_score(targets[:, c], chosen[:, c]) == pytest.approx(best)


def test_tuned_thresholds_at_the_edges():
    scores = torch.tensor([[0.9, 0.2, 0.7], [0.3, 0.2, 0.1], [0.1, 0.1, 0.4]])
    targets = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 1, 0]])
    # Halfway; always, for a label in every picture; 0.5, for one in none.
    assert tune_thresholds(scores, targets).tolist() == pytest.approx([0.6, 0.0, 0.5])


def test_of_equally_good_thresholds_the_highest_is_tuned():
    """The first picture alone and all four have an F1 of 2/3."""
    scores, targets = torch.tensor([[0.8], [0.6], [0.4], [0.2]]), torch.tensor([[1.0], [0], [0], [1]])
    assert tune_thresholds(scores, targets).tolist() == pytest.approx([0.7])


@pytest.mark.parametrize("steps", [0, 1])
def test_a_tuned_threshold_separates_neighbouring_floats(steps: int):
    """The mean of two neighbours rounds to the upper one for one of the two pairs, and to the lower one for the next."""
    zero, upper = torch.tensor([0.0, 0.7], dtype=torch.float64)
    for _ in range(steps):
        upper = torch.nextafter(upper, zero)
    lower = torch.nextafter(upper, zero)
    scores = torch.stack([upper, lower])[:, None]
    predicted = predict_above(scores, tune_thresholds(scores, torch.tensor([[1.0], [0]])))
    assert predicted.flatten().tolist() == [True, False]


def test_report_is_json_with_every_protocol():
    scores, targets = draw(1)
    tuned = tune_thresholds(scores, targets)
    report = json.loads(json.dumps(score_report(scores, targets, NAMES, tuned)))
    protocols = ["oracle_k", "threshold", "top3", "top3_threshold", "threshold_tuned"]
    assert list(report) == ["images", "mAP", "labels_without_positives", *protocols, "thresholds", "per_label"]
    assert report["thresholds"] == dict(zip(NAMES, tuned.tolist(), strict=True))
    assert report["images"] == 50
    assert all({"OF1", "CF1"} < report[protocol].keys() for protocol in protocols)
    assert report["threshold_tuned"]["CF1"] > report["threshold"]["CF1"]
    assert "threshold_tuned" not in score_report(scores, targets, NAMES)


def test_a_report_without_any_positive_has_no_map():
    report = score_report(torch.rand(4, 6), torch.zeros(4, 6), NAMES)
    assert report["mAP"] is None
    assert report["labels_without_positives"] == 6


@pytest.mark.parametrize(
    ("scores", "targets", "sentence"),
    [
        (torch.rand(2, 6), torch.zeros(3, 6), "one shape"),
        (torch.rand(0, 6), torch.zeros(0, 6), "neither of them empty"),
        (torch.full((2, 6), math.nan), torch.zeros(2, 6), "finite"),
        (torch.full((2, 6), 1.5), torch.zeros(2, 6), "sigmoid"),
        (torch.rand(2, 6), torch.full((2, 6), -1.0), "0 or 1"),
        (torch.rand(2, 5), torch.zeros(2, 5), "one label per column"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(scores: Tensor, targets: Tensor, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        score_report(scores, targets, NAMES)


@pytest.mark.parametrize("measure", [average_precisions, tune_thresholds, f1_scores, predict_oracle_k, predict_top, predict_above])
def test_arrays_are_refused_in_words(measure: Callable[[Any, Any], object]):
    with pytest.raises(ValueError, match="Expected tensors of torch's; got ndarray"):
        measure(np.ones((2, 6)), 1 if measure in (predict_top, predict_above) else np.ones((2, 6)))


@pytest.mark.parametrize("measure", [average_precisions, tune_thresholds])
def test_what_has_no_order_is_refused_by_every_measure(measure: Callable[[Tensor, Tensor], Tensor]):
    with pytest.raises(ValueError, match="Scores must be finite"):
        measure(torch.full((2, 6), math.nan), torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("predicted", "targets", "sentence"),
    [
        (torch.ones(1, 6), torch.ones(2, 6), "one shape"),
        (torch.rand(2, 6), torch.zeros(2, 6), "yes or no; predict_above makes them of probabilities"),
        (torch.ones(2, 6), torch.full((2, 6), -1), "Targets must be 0 or 1"),
        (torch.ones(2, 6), torch.full((2, 6), math.nan), "Targets must be 0 or 1"),
    ],
)
def test_what_is_no_decision_or_no_truth_is_not_counted_as_one(predicted: Tensor, targets: Tensor, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        f1_scores(predicted, targets)
    if "yes" not in sentence:
        with pytest.raises(ValueError, match=sentence):
            predict_oracle_k(predicted, targets)


def test_labels_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one label per column of the scores, 6, none twice"):
        score_report(torch.rand(2, 6), torch.zeros(2, 6), (*NAMES[:5], NAMES[0]))


def test_thresholds_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one threshold per label"):
        score_report(torch.rand(2, 6), torch.zeros(2, 6), NAMES, torch.rand(5))
    with pytest.raises(ValueError, match="Expected tensors of torch's; got list"):
        score_report(torch.rand(2, 6), torch.zeros(2, 6), NAMES, [0.5] * 6)
