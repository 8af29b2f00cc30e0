"""The sensitivity to the loss weights: which points are trained, and what is read off their curves."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from l2d.distill import METHODS
from l2d.reproduce import plan_figure1
from l2d.sweep import collect_sweep, plan_sweep
from tests.l2d.conftest import finish, make_settings


def test_sweep_varies_one_weight_and_keeps_the_others():
    _, student = plan_figure1(make_settings())
    weights = [training.plan.recipe.weights for training in plan_sweep(student, (0.1, 10))]
    published = METHODS["l2d"]
    assert weights.count(published) == 1
    others = [{name for name in published if chosen[name] != published[name]} for chosen in weights if chosen != published]
    assert sorted(map(list, others)) == [["cd"], ["cd"], ["id"], ["id"], ["mld"], ["mld"]]
    assert sorted(chosen["cd"] for chosen in weights if chosen["cd"] != 100) == [10, 1000]


def test_sweep_varies_the_weights_of_its_recipe():
    _, student = plan_figure1(make_settings(recipe="short"))
    weights = [training.plan.recipe.weights for training in plan_sweep(student, (0.5,))]
    assert weights == [
        {"mld": 32, "cd": 3, "id": 100},
        {"mld": 64, "cd": 3, "id": 100},
        {"mld": 64, "cd": 1.5, "id": 100},
        {"mld": 64, "cd": 3, "id": 50},
    ]


def test_sweep_names_the_best_weight_of_each_curve(tmp_path: Path):
    _, student = plan_figure1(make_settings(tmp_path))
    for training in plan_sweep(student, (0.1,)):
        # Best at a tenth of mld and at the published weight of id; that of cd does not matter.
        weights = training.plan.recipe.weights
        finish(training, 50 - weights["mld"] + weights["id"] / 100)
    report = collect_sweep(student, (0.1,))
    assert report["seed"] == student.recipe.seed
    curves = report["curves"]
    assert {loss: (curve["usual"], curve["best"]) for loss, curve in curves.items()} == {
        "mld": (10, 1),
        "cd": (100, 100),
        "id": (1000, 1000),
    }
    assert [point["mAP"] for point in curves["mld"]["points"]] == [59.0, 50.0]


@pytest.mark.parametrize(
    ("changes", "factors", "sentence"),
    [
        ({"method": "vanilla"}, (1.0,), "Method vanilla has no weights to vary; choose one of rkd, "),
        ({"holdout": 0.0}, (1.0,), "give a holdout above 0"),
        ({}, (0.0, 1.0), "Expected factors above 0, none twice; got 0, 1"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(changes: dict[str, Any], factors: tuple[float, ...], sentence: str):
    _, student = plan_figure1(make_settings())
    with pytest.raises(ValueError, match=sentence):
        plan_sweep(dataclasses.replace(student, recipe=dataclasses.replace(student.recipe, **changes)), factors)
