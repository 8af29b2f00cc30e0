"""A recipe: bad numbers are refused before anything starts."""

import dataclasses
import math
from typing import Any

import pytest

from l2d.distill import METHODS
from l2d.recipe import BOUNDS, Recipe


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds(name: str) -> None:
    low, high = BOUNDS[name]
    step = 1 if isinstance(low, int) else 1e-6
    assert getattr(Recipe(**{name: low}), name) == low
    assert getattr(Recipe(**{name: high}), name) == high
    for outside in (low - step, high + step):
        with pytest.raises(ValueError, match=f"^{name} must lie between"):
            Recipe(**{name: outside})


def test_every_number_has_bounds() -> None:
    numbers = {field.name for field in dataclasses.fields(Recipe) if isinstance(field.default, int | float)}
    assert numbers == BOUNDS.keys()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"lr": math.nan}, "lr must lie between 1e-08 and 10; got nan"),
        ({"lr": "fast"}, "lr must be a number; got 'fast'"),
        ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"method": "kd"}, "Unknown method 'kd'; the known ones are vanilla, .*l2d"),
        ({"method": "mld", "weights": {"cd": 1.0}}, "Method mld has no loss 'cd'; it has mld"),
        ({"method": "mld", "weights": {"mld": -1.0}}, "The weight of mld must be a number from 0 on; got -1"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Recipe(**fields)


def test_a_recipe_tells_the_weights_that_are_really_used() -> None:
    recipe = Recipe(method="l2d", weights={"cd": 5.0})
    assert recipe.as_dict()["weights"] == METHODS["l2d"] | {"cd": 5.0}
    assert Recipe(**recipe.as_dict()).as_dict() == recipe.as_dict()


def test_a_recipe_on_record_differs_in_what_it_says_otherwise_not_in_what_it_does_not_know_yet() -> None:
    recipe = Recipe(method="l2d", lr=1e-3)
    recorded = {name: value for name, value in recipe.as_dict().items() if name != "share"} | {"gone": 1}
    assert recipe.find_changes(recorded) == []
    assert recipe.find_changes(recorded | {"weights": {}}) == []  # the method's own
    assert dataclasses.replace(recipe, share=0.5, lr=1e-4).find_changes(recorded) == ["lr", "share"]
    assert dataclasses.replace(recipe, weights={"cd": 1.0}).find_changes(recorded) == ["weights"]


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.weight_decay, recipe.warmup) == (1e-4, 64, 80, 1e-4, 0.2)
